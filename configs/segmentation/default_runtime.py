# What every segmentation run shares.
_base_ = '../_base_/default_runtime.py'
default_scope = 'mmseg'
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=4000),
    load_report=dict(type='medssl_mm.LoadReportHook'),
)
log_processor = dict(by_epoch=False)
