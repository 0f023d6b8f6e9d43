# VICRegL on ACDC, protocol acdc-20, on one process.
_base_ = [
    'vicreg_resnet18_1xb64-coslr-150e_acdc-64.py',
    '../_base_/levels/vicregl.py',
]
model = dict(
    backbone=_base_.vicregl_backbone,
    multi_level_head=dict(levels=_base_.vicregl_levels),
)
