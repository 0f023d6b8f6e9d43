# SGD as of the released code: 0.03 for 5 epochs, then from 0.01 upwards.
_base_ = 'sgd_coslr-200e.py'
optim_wrapper = dict(optimizer=dict(weight_decay=1e-6))
param_scheduler = [dict(type='LinearLR', by_epoch=True, begin=5, end=500)]
train_cfg = dict(max_epochs=300)
auto_scale_lr = dict(base_batch_size=64)
