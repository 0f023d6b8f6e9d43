# MoCo v2, the baseline of the method, on AbdomenCT-1K.
_base_ = [
    '../_base_/models/mocov2_resnet50.py',
    '../_base_/datasets/ct_two_views.py',
    '../../data/abdomen1k.py',
    '../_base_/schedules/sgd_coslr-200e.py',
    '../default_runtime.py',
]
