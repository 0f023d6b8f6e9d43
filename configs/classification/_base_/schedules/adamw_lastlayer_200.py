# AdamW for a linear head on frozen features of small images, 200 iterations.
_base_ = 'iterations.py'
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=3e-3, weight_decay=1e-4)
)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False)]
train_cfg = dict(max_iters=200, val_interval=20)
default_hooks = dict(checkpoint=dict(interval=100))
auto_scale_lr = dict(enable=False, base_batch_size=32)
