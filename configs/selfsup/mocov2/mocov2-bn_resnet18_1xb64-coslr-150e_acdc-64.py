# MoCo v2 with a batch-normalised projector, on ACDC, protocol acdc-20.
_base_ = [
    '../_base_/models/mocov2_bn_resnet18.py',
    '../_base_/datasets/small_two_views.py',
    '../../data/acdc.py',
    '../_base_/schedules/sgd_coslr-150e_small.py',
    '../default_runtime.py',
]
