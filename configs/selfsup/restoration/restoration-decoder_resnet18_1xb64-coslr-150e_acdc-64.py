# Masked restoration by encoder and decoder of DeepLabv3+, on ACDC (acdc-20).
_base_ = [
    '../_base_/models/restoration_deeplabv3plus_resnet18.py',
    '../_base_/datasets/small_masked_views.py',
    '../../data/acdc.py',
    '../_base_/schedules/adam_warmup-coslr-150e_small.py',
    '../default_runtime.py',
]
