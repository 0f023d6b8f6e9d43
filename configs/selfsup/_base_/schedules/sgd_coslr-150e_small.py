# SGD, cosine decay, for small networks and data sets, global batch 64.
_base_ = 'sgd_coslr-200e.py'
optim_wrapper = dict(optimizer=dict(lr=0.06))
train_cfg = dict(max_epochs=150)
auto_scale_lr = dict(base_batch_size=64)
