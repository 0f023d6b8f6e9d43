# Fine-tuning of all weights: EyePACS, 299 px, referable retinopathy or not.
_base_ = [
    '../_base_/models/resnet50.py',
    '../_base_/datasets/diabetic_retinopathy.py',
    '../_base_/schedules/adamw_coslr-50e.py',
]
model = dict(
    backbone=dict(in_channels=3), head=dict(type='LinearClsHead', num_classes=2)
)
