# MoCo v2 with batch statistics split as over 8 processes, on ACDC, acdc-20.
_base_ = [
    '../_base_/models/mocov2_split_bn_resnet18.py',
    '../_base_/datasets/small_two_views.py',
    '../../data/acdc.py',
    '../_base_/schedules/sgd_coslr-150e_small.py',
    '../default_runtime.py',
]
