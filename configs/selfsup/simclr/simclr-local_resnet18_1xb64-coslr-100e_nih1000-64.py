# SimCLR + contrast of local regions, on 1000 chest X-rays (nih1000-patients).
_base_ = [
    'simclr_resnet18_1xb64-coslr-100e_nih1000-64.py',
    '../_base_/levels/local_contrast.py',
]
model = dict(
    backbone=_base_.local_backbone, multi_level_head=dict(levels=_base_.local_levels)
)
