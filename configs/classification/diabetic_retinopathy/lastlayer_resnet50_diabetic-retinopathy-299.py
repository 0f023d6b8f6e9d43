# Last layer only: EyePACS, 299 px, referable retinopathy or not.
_base_ = [
    '../_base_/models/frozen_resnet50.py',
    '../_base_/datasets/diabetic_retinopathy.py',
    '../_base_/schedules/adam_100e.py',
]
model = dict(
    backbone=dict(in_channels=3), head=dict(type='LinearClsHead', num_classes=2)
)
