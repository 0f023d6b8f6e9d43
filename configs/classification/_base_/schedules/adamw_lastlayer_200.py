# AdamW for a linear head on frozen features of small images, 200 iterations, so
# that every label fraction gets the same number of steps. Leaves set
# train_dataloader.sampler.infinite.
_base_ = '../../default_runtime.py'
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=3e-3, weight_decay=1e-4)
)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=200, val_interval=20)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=100),
)
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=32)
