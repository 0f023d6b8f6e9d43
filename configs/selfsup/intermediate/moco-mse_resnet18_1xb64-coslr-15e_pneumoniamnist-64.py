# MoCo + MSE of the maps of all stages, on PneumoniaMNIST.
_base_ = [
    'moco_resnet18_1xb64-coslr-15e_pneumoniamnist-64.py',
    '../_base_/levels/feature_mse.py',
]
model = dict(multi_level_head=dict(levels=_base_.feature_mse_levels))
