# Linear decoder: CT phantom, protocol phantom-24, 13 organs.
_base_ = [
    '../_base_/models/linear_resnet18.py',
    '../_base_/datasets/phantom_128.py',
    '../_base_/schedules/adamw_linear_400.py',
]
model = dict(decode_head=dict(num_classes=14))
train_dataloader = dict(dataset=dict(pipeline=_base_.fixed_pipeline))
