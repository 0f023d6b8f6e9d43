# MoCo v2 with ResNet-18 for small grey images and small data sets.
_base_ = 'mocov2_resnet50.py'
model = dict(
    # A few hundred slices, thousands of steps: the queue must be shorter than
    # the data set, and the key encoder may follow faster.
    queue_len=512,
    ema_decay=0.99,
    backbone=dict(depth=18),
    neck=dict(in_channels=512, hid_channels=512))
