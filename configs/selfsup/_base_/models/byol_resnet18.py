# BYOL with ResNet-18 for small images and small data sets.
_base_ = 'byol_resnet50.py'
model = dict(
    backbone=dict(depth=18),
    neck=dict(hid_channels=512),
    # 0.99 is for tens of thousands of steps; in a few thousand the target lags.
    ema_decay=0.95,
)
