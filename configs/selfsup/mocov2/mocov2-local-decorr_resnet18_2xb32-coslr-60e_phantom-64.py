# MoCo v2 + local contrast + decorrelated last map, on the CT phantom.
_base_ = [
    'mocov2_resnet18_2xb32-coslr-60e_phantom-64.py',
    '../_base_/levels/local_contrast_resnet18.py',
    '../_base_/levels/decorrelation_resnet18.py',
]
model = dict(
    backbone=_base_.local_backbone,
    multi_level_head=dict(levels=_base_.local_levels),
    decorrelation=_base_.decorrelation,
)
