# MoCo + MSE of the maps, as in the published code, on EyePACS retina
# photographs.
_base_ = [
    'moco-parity_resnet50_1xb8-const-1000e_diabetic-retinopathy-299.py',
    '../_base_/levels/feature_mse.py',
]
model = dict(
    backbone=dict(zero_init_residual=True),
    multi_level_head=dict(levels=_base_.feature_mse_levels),
)
