# AdamW for a linear decoder on small images, 400 iterations.
_base_ = '../../default_runtime.py'
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01, weight_decay=1e-4)
)
param_scheduler = [
    dict(type='PolyLR', eta_min=1e-5, power=0.9, end=400, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=400, val_interval=100)
default_hooks = dict(checkpoint=dict(interval=100))
auto_scale_lr = dict(enable=False, base_batch_size=16)
