# MoCo v2, the baseline of the method, on NIH ChestX-ray14.
_base_ = [
    '../_base_/models/mocov2_resnet50.py',
    '../_base_/datasets/nih_cxr14_two_views.py',
    '../_base_/schedules/sgd_coslr-200e.py',
    '../default_runtime.py',
]
