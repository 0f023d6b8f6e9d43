# MoCo + Barlow Twins on all stages, on PneumoniaMNIST.
_base_ = [
    'moco_resnet18_1xb64-coslr-15e_pneumoniamnist-64.py',
    '../_base_/levels/barlow_twins_resnet18.py',
]
model = dict(multi_level_head=dict(levels=_base_.barlow_twins_levels))
