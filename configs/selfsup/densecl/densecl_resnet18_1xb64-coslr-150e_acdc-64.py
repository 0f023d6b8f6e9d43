# DenseCL on ACDC, protocol acdc-20, on one process.
_base_ = [
    '../mocov2/mocov2_resnet18_1xb64-coslr-150e_acdc-64.py',
    '../_base_/levels/densecl.py',
]
model = dict(
    contrast_weight=0.5,
    backbone=_base_.densecl_backbone,
    multi_level_head=dict(levels=_base_.densecl_levels),
)
