# Linear decoder on the stages 1 to 4 of EfficientNet-Lite0: ACDC, protocol acdc-20.
_base_ = [
    '../_base_/models/linear_efficientnet-lite0.py',
    '../_base_/datasets/slices_128.py',
    '../../data/acdc.py',
    '../_base_/schedules/adamw_linear_400.py',
]
train_dataloader = dict(dataset=dict(pipeline=_base_.fixed_pipeline))
