# Linear decoder on the stages 1 to 4: BTCV, protocol btcv-18-12, 8 organs.
_base_ = [
    '../_base_/models/linear_resnet50.py',
    '../_base_/datasets/slices_512.py',
    '../../data/btcv.py',
    '../_base_/schedules/sgd_40k.py',
]
# The protocol has no validation volumes: validation shows the test volumes, for
# watching, and the last checkpoint counts.
val_dataloader = dict(dataset=dict(subset='test'))
default_hooks = dict(checkpoint=dict(save_best=None))
