# MoCo v2 + MSE of the maps of all stages, on NIH ChestX-ray14.
_base_ = [
    'moco_resnet50_8xb32-coslr-200e_nih-cxr14-512.py',
    '../_base_/levels/feature_mse.py',
]
model = dict(multi_level_head=dict(levels=_base_.feature_mse_levels))
