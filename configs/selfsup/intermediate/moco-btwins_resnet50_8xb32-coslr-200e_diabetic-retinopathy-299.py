# MoCo v2 + Barlow Twins on all stages, on EyePACS retina photographs.
_base_ = [
    'moco_resnet50_8xb32-coslr-200e_diabetic-retinopathy-299.py',
    '../_base_/levels/barlow_twins_resnet50.py',
]
model = dict(multi_level_head=dict(levels=_base_.barlow_twins_levels))
