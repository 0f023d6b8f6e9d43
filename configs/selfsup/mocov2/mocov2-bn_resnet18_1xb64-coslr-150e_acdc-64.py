# MoCo v2 with a batch-normalised projector, on ACDC, protocol acdc-20.
_base_ = [
    '../_base_/models/mocov2_bn_resnet18.py',
    '../_base_/datasets/acdc_two_views.py',
    '../_base_/schedules/sgd_coslr-150e_small.py',
    '../default_runtime.py',
]
