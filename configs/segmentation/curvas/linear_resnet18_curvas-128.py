# Linear decoder: CURVAS slices, protocol curvas-14, 3 organs.
_base_ = [
    '../_base_/models/linear_resnet18.py',
    '../_base_/datasets/curvas_128.py',
    '../_base_/schedules/adamw_linear_200.py',
]
model = dict(decode_head=dict(num_classes=4))
train_dataloader = dict(dataset=dict(pipeline=_base_.fixed_pipeline))
