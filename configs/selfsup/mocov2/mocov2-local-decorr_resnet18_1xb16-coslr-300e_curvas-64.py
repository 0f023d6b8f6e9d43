# MoCo v2 + local contrast + decorrelated last map, on CURVAS (curvas-14).
_base_ = [
    'mocov2_resnet18_1xb16-coslr-300e_curvas-64.py',
    '../_base_/levels/local_contrast_resnet18.py',
    '../_base_/levels/decorrelation_resnet18.py',
]
model = dict(
    backbone=_base_.local_backbone,
    multi_level_head=dict(levels=_base_.local_levels),
    decorrelation=_base_.decorrelation,
)
