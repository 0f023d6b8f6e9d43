# MoCo v2 with ResNet-18 for small grey images and small data sets.
_base_ = 'mocov2_resnet50.py'
model = dict(
    # Under half the data set, so that a slice's own key of the last epoch is
    # seldom among the negatives; and the key encoder may follow faster.
    queue_len=256,
    ema_decay=0.99,
    backbone=dict(depth=18),
    neck=dict(in_channels=512, hid_channels=512),
)
