# MoCo v2 + contrast of local regions of stage 3, on ACDC (acdc-20).
_base_ = 'mocov2_resnet18_1xb64-coslr-150e_acdc-64.py'
model = dict(
    multi_level_head=dict(levels=[
        dict(
            stage=3,
            neck=dict(type='medssl_mm.LocalContrastNeck', in_channels=256),
            loss=dict(type='medssl_mm.LocalInfoNCELoss'),
            weight=0.5,
            name='local')
    ]))
