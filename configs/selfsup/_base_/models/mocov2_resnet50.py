# MoCo v2 with ResNet-50.
model = dict(
    type='medssl_mm.MultiLevelMoCo',
    # Measured faster at any precision (tools/benchmark/train_step.py).
    channels_last=True,
    backbone=dict(
        type='ResNet',
        depth=50,
        norm_cfg=dict(type='BN'),
        # Start from a checkpoint, ours or another one of the same network:
        # --cfg-options model.backbone.init_cfg.checkpoint=FILE
        init_cfg=dict(type='medssl_mm.PretrainedBackbone', checkpoint=None),
    ),
    neck=dict(type='MoCoV2Neck', hid_channels=2048, out_channels=128),
    head=dict(type='medssl_mm.InfoNCELoss'),
    # Further loss terms on stages 0 (stem) to 4, none here; see
    # medssl_mm/models/heads/multi_level_head.py.
    multi_level_head=dict(type='medssl_mm.MultiLevelHead', levels=[]),
)
