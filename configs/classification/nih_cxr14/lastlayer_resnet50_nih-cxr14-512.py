# Last layer only: NIH ChestX-ray14, 512 px, fourteen findings.
_base_ = [
    '../_base_/models/frozen_resnet50.py',
    '../_base_/datasets/xray_512.py',
    '../../data/nih_cxr14.py',
    '../_base_/schedules/adam_100e.py',
]
