# Linear decoder on the stages 1 to 4: ACDC, protocol acdc-20, 3 structures.
_base_ = [
    '../_base_/models/linear_resnet18.py',
    '../_base_/datasets/slices_128.py',
    '../../data/acdc.py',
    '../_base_/schedules/adamw_linear_400.py',
]
train_dataloader = dict(dataset=dict(pipeline=_base_.fixed_pipeline))
