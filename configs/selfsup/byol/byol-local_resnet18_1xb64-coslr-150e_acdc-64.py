# BYOL + contrast of local regions, on ACDC (acdc-20).
_base_ = [
    'byol_resnet18_1xb64-coslr-150e_acdc-64.py',
    '../_base_/levels/local_contrast.py',
]
model = dict(
    backbone=_base_.local_backbone, multi_level_head=dict(levels=_base_.local_levels)
)
