# Fine-tuning of all weights: IDC histopathology, 255 px, carcinoma or not.
_base_ = [
    '../_base_/models/resnet50.py',
    '../_base_/datasets/idc.py',
    '../_base_/schedules/adamw_coslr-50e.py',
]
model = dict(
    backbone=dict(in_channels=3), head=dict(type='LinearClsHead', num_classes=2)
)
# Classes are unequal and F1 is what is reported.
default_hooks = dict(checkpoint=dict(save_best='classification/macro_F1'))
