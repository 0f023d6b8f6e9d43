# What every classification run shares; by epochs unless a schedule says
# otherwise. Evaluation is by patients: quick while training, with intervals in
# tests. The checkpoint that is best on the validation subset is kept: test
# that one.
_base_ = '../_base_/default_runtime.py'
default_scope = 'mmpretrain'
val_cfg = dict(type='ValLoop')
val_evaluator = dict(type='medssl_mm.ClassificationMetric', bootstrap_samples=0)
test_cfg = dict(type='TestLoop')
# Tables go to <work_dir>/test unless out_dir says otherwise.
test_evaluator = dict(type='medssl_mm.ClassificationMetric')
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(interval=1, save_best='classification/macro_AUROC', rule='greater'),
    load_report=dict(type='medssl_mm.LoadReportHook'),
    evaluation_files=dict(type='medssl_mm.EvaluationFilesHook'),
)
log_processor = dict(by_epoch=True)
