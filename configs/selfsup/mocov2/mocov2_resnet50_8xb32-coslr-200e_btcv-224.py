# MoCo v2, the baseline of the method, on the 18 training volumes of BTCV.
_base_ = [
    '../_base_/models/mocov2_resnet50.py',
    '../_base_/datasets/btcv_two_views.py',
    '../_base_/schedules/sgd_coslr-200e.py',
    '../default_runtime.py',
]
# About 2,200 slices: a longer queue would hold the images themselves.
model = dict(queue_len=2048, ema_decay=0.99)
