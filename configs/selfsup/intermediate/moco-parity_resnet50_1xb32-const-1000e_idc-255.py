# MoCo as in the published code, on breast histopathology (IDC).
_base_ = [
    '../_base_/models/moco_resnet50.py',
    '../_base_/datasets/idc_parity_two_views.py',
    '../_base_/schedules/sgd_const-1000e.py',
    '../default_runtime.py',
]
model = dict(backbone=dict(in_channels=3))
auto_scale_lr = dict(base_batch_size=32)
