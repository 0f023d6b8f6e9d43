# Evaluation by volume: quick while training, complete in tests.
_base_ = '../default_runtime.py'
val_cfg = dict(type='ValLoop')
val_evaluator = dict(
    type='medssl_mm.VolumeMetric', surface_metrics=False, bootstrap_samples=0
)
test_cfg = dict(type='TestLoop')
# Tables go to <work_dir>/test unless out_dir says otherwise.
test_evaluator = dict(type='medssl_mm.VolumeMetric', tolerance_mm=2.0)
default_hooks = dict(
    checkpoint=dict(save_best='volume/mDice', rule='greater'),
    evaluation_files=dict(type='medssl_mm.EvaluationFilesHook'),
)
