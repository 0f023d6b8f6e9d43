# MoCo v2 + contrast of local regions of stage 3, on BTCV (18 volumes).
_base_ = 'mocov2_resnet50_8xb32-coslr-200e_btcv-224.py'
model = dict(
    multi_level_head=dict(levels=[
        dict(
            stage=3,
            neck=dict(type='medssl_mm.LocalContrastNeck', in_channels=1024),
            loss=dict(type='medssl_mm.LocalInfoNCELoss'),
            weight=0.5,
            name='local')
    ]))
