# What every pretraining run shares.
_base_ = '../_base_/default_runtime.py'
default_scope = 'mmselfsup'
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=10),
    queue_check=dict(type='medssl_mm.QueueCheckHook'),
    # Of BYOL; leaves other methods alone.
    target_update=dict(type='medssl_mm.TargetUpdateHook'),
)
log_processor = dict(by_epoch=True)
