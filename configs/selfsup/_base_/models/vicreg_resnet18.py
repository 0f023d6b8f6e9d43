# VICReg with ResNet-18 for small images and small data sets.
model = dict(
    type='medssl_mm.MultiLevelVICReg',
    channels_last=True,
    backbone=dict(
        type='ResNet',
        depth=18,
        norm_cfg=dict(type='BN'),
        # FILE: --cfg-options model.backbone.init_cfg.checkpoint=FILE
        init_cfg=dict(type='medssl_mm.PretrainedBackbone', checkpoint=None),
    ),
    # The expander of the paper with a quarter of its channels.
    neck=dict(
        type='NonLinearNeck',
        hid_channels=2048,
        out_channels=2048,
        num_layers=3,
        with_bias=False,
        with_last_bn=False,
        norm_cfg=dict(type='BN1d'),
    ),
    head=dict(type='medssl_mm.VICRegLoss'),
    multi_level_head=dict(type='medssl_mm.MultiLevelHead', levels=[]),
)
