# MoCo v2 + contrast of local regions of stage 3, on the CT phantom.
_base_ = 'mocov2_resnet18_2xb32-coslr-60e_phantom-64.py'
model = dict(
    multi_level_head=dict(levels=[
        dict(
            stage=3,
            neck=dict(type='medssl_mm.LocalContrastNeck', in_channels=256),
            loss=dict(type='medssl_mm.LocalInfoNCELoss'),
            weight=0.5,
            name='local')
    ]))
