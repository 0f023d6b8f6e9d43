# MoCo v2, the baseline of the method, on breast histopathology (IDC).
_base_ = [
    '../_base_/models/mocov2_resnet50.py',
    '../_base_/datasets/idc_two_views.py',
    '../_base_/schedules/sgd_coslr-200e.py',
    '../default_runtime.py',
]
model = dict(backbone=dict(in_channels=3))
