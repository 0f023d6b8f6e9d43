# MoCo v2, the baseline of the method, on EyePACS retina photographs.
_base_ = [
    '../_base_/models/mocov2_resnet50.py',
    '../_base_/datasets/diabetic_retinopathy_two_views.py',
    '../_base_/schedules/sgd_coslr-200e.py',
    '../default_runtime.py',
]
# About 28,000 labelled images: a longer queue would hold the images too.
model = dict(backbone=dict(in_channels=3), queue_len=16384)
