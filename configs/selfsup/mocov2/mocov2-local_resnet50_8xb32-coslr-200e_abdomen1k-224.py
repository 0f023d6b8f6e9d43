# MoCo v2 + contrast of local regions, on AbdomenCT-1K.
_base_ = [
    'mocov2_resnet50_8xb32-coslr-200e_abdomen1k-224.py',
    '../_base_/levels/local_contrast.py',
]
model = dict(
    backbone=_base_.local_backbone, multi_level_head=dict(levels=_base_.local_levels)
)
