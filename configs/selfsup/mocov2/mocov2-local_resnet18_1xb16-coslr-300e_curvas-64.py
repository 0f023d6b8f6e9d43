# MoCo v2 + contrast of local regions of stage 3, on CURVAS (curvas-14).
_base_ = 'mocov2_resnet18_1xb16-coslr-300e_curvas-64.py'
model = dict(
    multi_level_head=dict(levels=[
        dict(
            stage=3,
            neck=dict(type='medssl_mm.LocalContrastNeck', in_channels=256),
            loss=dict(type='medssl_mm.LocalInfoNCELoss'),
            weight=0.5,
            name='local')
    ]))
