# BYOL with the padding of torch, as published comparisons used it.
_base_ = 'byol.py'
encoder = dict(
    title='BYOL (torch padding)',
    backbone=dict(type='mmpretrain.ResNet'),
)
