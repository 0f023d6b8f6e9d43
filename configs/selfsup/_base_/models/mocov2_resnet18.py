# MoCo v2 with ResNet-18 for small images and small data sets.
model = dict(
    type='medssl_mm.MultiLevelMoCo',
    # Under half the data set, so that a slice's own key of the last epoch is
    # seldom among the negatives; and the key encoder may follow faster.
    queue_len=256,
    ema_decay=0.99,
    channels_last=True,
    backbone=dict(
        type='ResNet',
        depth=18,
        norm_cfg=dict(type='BN'),
        # FILE: --cfg-options model.backbone.init_cfg.checkpoint=FILE
        init_cfg=dict(type='medssl_mm.PretrainedBackbone', checkpoint=None),
    ),
    neck=dict(type='MoCoV2Neck', hid_channels=512, out_channels=128),
    head=dict(type='medssl_mm.InfoNCELoss'),
    multi_level_head=dict(type='medssl_mm.MultiLevelHead', levels=[]),
)
