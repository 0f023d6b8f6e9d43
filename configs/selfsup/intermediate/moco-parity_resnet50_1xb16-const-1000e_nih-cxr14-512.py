# MoCo as in the published code, on NIH ChestX-ray14.
_base_ = [
    '../_base_/models/moco_resnet50.py',
    '../_base_/datasets/nih_cxr14_parity_two_views.py',
    '../_base_/schedules/sgd_const-1000e.py',
    '../default_runtime.py',
]
auto_scale_lr = dict(base_batch_size=16)
