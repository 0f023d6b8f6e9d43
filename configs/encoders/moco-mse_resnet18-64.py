# MoCo-MSE of this package on chest X-rays of 64 px: moco-mse_resnet18-64:CHECKPOINT.
_base_ = '_base_/resnet18_64.py'
encoder = dict(
    title='MoCo-MSE',
)
