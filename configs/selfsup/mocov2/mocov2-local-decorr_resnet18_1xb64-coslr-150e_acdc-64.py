# MoCo v2 + local contrast + decorrelated last map, on ACDC (acdc-20).
_base_ = [
    'mocov2_resnet18_1xb64-coslr-150e_acdc-64.py',
    '../_base_/levels/local_contrast.py',
    '../_base_/levels/decorrelation_resnet18.py',
]
model = dict(
    backbone=_base_.local_backbone,
    multi_level_head=dict(levels=_base_.local_levels),
    decorrelation=_base_.decorrelation,
)
