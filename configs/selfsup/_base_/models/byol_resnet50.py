# BYOL with ResNet-50; projector and predictor of InnerEye.
model = dict(
    type='medssl_mm.MultiLevelBYOL',
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
        with_last_bn=False,
        with_last_bias=True,
        norm_cfg=dict(type='BN1d'),
    ),
    head=dict(
        type='LatentPredictHead',
        loss=dict(type='medssl_mm.LatentPredictionLoss'),
        predictor=dict(
            type='NonLinearNeck',
            in_channels=128,
            hid_channels=128,
            out_channels=128,
            with_avg_pool=False,
            with_last_bn=False,
            with_last_bias=True,
            norm_cfg=dict(type='BN1d'),
        ),
    ),
    # Further loss terms on stages 0 (stem) to 4, none here; see
    # medssl_mm/models/heads/multi_level_head.py.
    multi_level_head=dict(type='medssl_mm.MultiLevelHead', levels=[]),
)
