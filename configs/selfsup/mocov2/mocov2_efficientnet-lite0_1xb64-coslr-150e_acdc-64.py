# MoCo v2 with EfficientNet-Lite0 on ACDC, protocol acdc-20, on one process.
_base_ = [
    '../_base_/models/mocov2_efficientnet-lite0.py',
    '../_base_/datasets/small_two_views.py',
    '../../data/acdc.py',
    '../_base_/schedules/sgd_coslr-150e_small.py',
    '../default_runtime.py',
]
