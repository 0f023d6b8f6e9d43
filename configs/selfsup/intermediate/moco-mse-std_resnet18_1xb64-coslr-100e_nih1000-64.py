# MoCo + MSE of the standardised maps of all stages, on 1000 chest X-rays.
_base_ = [
    'moco_resnet18_1xb64-coslr-100e_nih1000-64.py',
    '../_base_/levels/feature_mse_standardized.py',
]
model = dict(multi_level_head=dict(levels=_base_.feature_mse_levels))
