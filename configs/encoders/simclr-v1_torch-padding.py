# SimCLR with the padding of torch, as published comparisons used it.
_base_ = 'simclr-v1.py'
encoder = dict(
    title='SimCLR (torch padding)',
    backbone=dict(_delete_=True, type='mmpretrain.ResNet', depth=50, style='pytorch'),
)
