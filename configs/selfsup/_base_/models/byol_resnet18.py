# BYOL with ResNet-18 for small images and small data sets.
_base_ = 'byol_resnet50.py'
model = dict(backbone=dict(depth=18), neck=dict(hid_channels=512))
