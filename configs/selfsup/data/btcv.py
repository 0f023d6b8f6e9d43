# Pretraining on the training volumes of BTCV. About 2,200 slices: a longer
# queue would hold the images themselves.
_base_ = '../../data/btcv.py'
settings_for = dict(MultiLevelMoCo=dict(model=dict(queue_len=2048, ema_decay=0.99)))
