# Linear decoder on hand-made features of each pixel: nothing is pretrained.
_base_ = 'linear_resnet18.py'
model = dict(
    backbone=dict(_delete_=True, type='medssl_mm.HandmadeFeatures'),
    decode_head=dict(in_index=0),
)
custom_hooks = []  # no normalisation to calibrate
