# AdamW for fine-tuning on small images, 500 iterations of batch 8. Below this
# rate a few hundred steps do not get beyond one foreground blob.
_base_ = '../../default_runtime.py'
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=25, by_epoch=False),
    dict(type='PolyLR', eta_min=1e-6, power=0.9, begin=25, end=500, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=500, val_interval=100)
default_hooks = dict(checkpoint=dict(interval=100))
auto_scale_lr = dict(enable=False, base_batch_size=8)
