# What every classification run shares; by epochs unless a schedule says
# otherwise.
_base_ = '../_base_/default_runtime.py'
default_scope = 'mmpretrain'
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(interval=1),
    load_report=dict(type='medssl_mm.LoadReportHook'),
)
log_processor = dict(by_epoch=True)
