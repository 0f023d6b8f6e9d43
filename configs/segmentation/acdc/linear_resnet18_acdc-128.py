# Linear decoder: ACDC, protocol acdc-20, 3 structures.
_base_ = [
    '../_base_/models/linear_resnet18.py',
    '../_base_/datasets/acdc_128.py',
    '../_base_/schedules/adamw_linear_400.py',
]
model = dict(decode_head=dict(num_classes=4))
train_dataloader = dict(dataset=dict(pipeline=_base_.fixed_pipeline))
