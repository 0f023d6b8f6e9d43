# What every segmentation run shares. Evaluation is by volume: quick while
# training, complete in tests.
_base_ = '../_base_/default_runtime.py'
default_scope = 'mmseg'
val_cfg = dict(type='ValLoop')
val_evaluator = dict(
    type='medssl_mm.VolumeMetric', surface_metrics=False, bootstrap_samples=0
)
test_cfg = dict(type='TestLoop')
# Tables go to <work_dir>/test unless out_dir says otherwise.
test_evaluator = dict(type='medssl_mm.VolumeMetric', tolerance_mm=2.0)
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(
        by_epoch=False, interval=4000, save_best='volume/mDice', rule='greater'
    ),
    load_report=dict(type='medssl_mm.LoadReportHook'),
    evaluation_files=dict(type='medssl_mm.EvaluationFilesHook'),
)
log_processor = dict(by_epoch=False)
