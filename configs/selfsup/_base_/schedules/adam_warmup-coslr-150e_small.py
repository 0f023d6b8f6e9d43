# Adam, for small networks and data sets, global batch 64.
_base_ = 'adam_warmup-coslr-2000e.py'
train_cfg = dict(max_epochs=150)
auto_scale_lr = dict(base_batch_size=64)
