# MoCo-BarlowTwins of this package, X-rays of 64 px: moco-btwins_resnet18-64:CHECKPOINT.
_base_ = '_base_/resnet18_64.py'
encoder = dict(
    title='MoCo-BarlowTwins',
)
