# SimCLR with ResNet-50; projector and temperature of InnerEye.
model = dict(
    type='medssl_mm.MultiLevelSimCLR',
    channels_last=True,
    backbone=dict(
        type='ResNet',
        depth=50,
        norm_cfg=dict(type='BN'),
        # FILE: --cfg-options model.backbone.init_cfg.checkpoint=FILE
        init_cfg=dict(type='medssl_mm.PretrainedBackbone', checkpoint=None),
    ),
    neck=dict(
        type='NonLinearNeck',
        hid_channels=2048,
        out_channels=128,
        with_bias=True,
        with_last_bn=False,
        norm_cfg=dict(type='BN1d'),
    ),
    head=dict(type='medssl_mm.NTXentLoss'),
    # Further loss terms on stages 0 (stem) to 4, none here; see
    # medssl_mm/models/heads/multi_level_head.py.
    multi_level_head=dict(type='medssl_mm.MultiLevelHead', levels=[]),
)
