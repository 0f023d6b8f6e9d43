# SGD of nnU-Net for networks that start at random: 2000 iterations of batch 8.
_base_ = '../../default_runtime.py'
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='SGD', lr=0.01, momentum=0.99, nesterov=True, weight_decay=3e-5
    ),
    clip_grad=dict(max_norm=12.0),
)
param_scheduler = [dict(type='PolyLR', eta_min=0, power=0.9, end=2000, by_epoch=False)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2000, val_interval=200)
default_hooks = dict(checkpoint=dict(interval=200))
auto_scale_lr = dict(enable=False, base_batch_size=8)
