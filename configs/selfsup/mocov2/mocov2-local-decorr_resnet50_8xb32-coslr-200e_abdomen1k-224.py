# MoCo v2 + local contrast + decorrelated last map, on AbdomenCT-1K.
_base_ = [
    'mocov2_resnet50_8xb32-coslr-200e_abdomen1k-224.py',
    '../_base_/levels/local_contrast.py',
    '../_base_/levels/decorrelation_resnet50.py',
]
model = dict(
    backbone=_base_.local_backbone,
    multi_level_head=dict(levels=_base_.local_levels),
    decorrelation=_base_.decorrelation,
)
