# Linear decoder on the stages 1 to 4: CT phantom, protocol phantom-24, 13 organs.
_base_ = [
    '../_base_/models/linear_resnet18.py',
    '../_base_/datasets/slices_128.py',
    '../../data/phantom.py',
    '../_base_/schedules/adamw_linear_400.py',
]
train_dataloader = dict(dataset=dict(pipeline=_base_.fixed_pipeline))
