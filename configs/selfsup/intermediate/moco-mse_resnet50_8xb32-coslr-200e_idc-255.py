# MoCo v2 + MSE of the maps of all stages, on breast histopathology (IDC).
_base_ = [
    'moco_resnet50_8xb32-coslr-200e_idc-255.py',
    '../_base_/levels/feature_mse.py',
]
model = dict(multi_level_head=dict(levels=_base_.feature_mse_levels))
