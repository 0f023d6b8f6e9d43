# Counts iterations, so that every label fraction gets the same number of
# steps. Leaves that inherit it set train_dataloader.sampler.infinite.
_base_ = '../classification_metric.py'
train_cfg = dict(type='IterBasedTrainLoop')
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False), checkpoint=dict(by_epoch=False)
)
log_processor = dict(by_epoch=False)
