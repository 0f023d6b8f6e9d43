# VICReg on ACDC, protocol acdc-20, on one process.
_base_ = [
    '../_base_/models/vicreg_resnet18.py',
    '../_base_/datasets/small_two_views.py',
    '../../data/acdc.py',
    '../_base_/schedules/adam_warmup-coslr-150e_small.py',
    '../default_runtime.py',
]
