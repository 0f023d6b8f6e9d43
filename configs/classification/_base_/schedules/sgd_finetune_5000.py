# SGD for fine-tuning, 5000 iterations along a cosine; ends when three
# validations, each after 200, bring nothing better. The best weights are those
# that are tested.
_base_ = '../../default_runtime.py'
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=1e-2, momentum=0.9, nesterov=True, weight_decay=1e-8),
)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=5000, val_interval=200)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=200),
    early_stopping=dict(
        type='medssl_mm.ResumableEarlyStoppingHook',
        monitor='classification/macro_AUROC',
        rule='greater',
        min_delta=0.0,
        patience=3,
    ),
)
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=64)
