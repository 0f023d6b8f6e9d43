# Linear decoder on hand-made features of each pixel: ACDC, protocol acdc-20.
_base_ = [
    '../_base_/models/linear_handmade.py',
    '../_base_/datasets/slices_128.py',
    '../../data/acdc.py',
    '../_base_/schedules/adamw_linear_400.py',
]
train_dataloader = dict(dataset=dict(pipeline=_base_.fixed_pipeline))
