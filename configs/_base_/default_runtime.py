# What every run shares: own types, logs, checkpoints, seed. The hosts'
# default_runtime.py add their scope, and whether they count epochs or
# iterations.
custom_imports = dict(imports=['medssl_mm.registry'], allow_failed_imports=False)
runner_type = 'medssl_mm.Runner'

default_hooks = dict(
    runtime_info=dict(type='RuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    finite_loss=dict(type='medssl_mm.FiniteLossHook'),
    logger=dict(type='LoggerHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Three, so that two complete ones exist while a third is written.
    checkpoint=dict(type='CheckpointHook', max_keep_ckpts=3),
    data_wait=dict(type='medssl_mm.DataWaitHook'),
)

log_level = 'INFO'
log_processor = dict(type='medssl_mm.ShortLogProcessor', window_size=10)
visualizer = dict(
    type='Visualizer',
    vis_backends=[
        dict(type='LocalVisBackend'),
        dict(type='TensorboardVisBackend'),
    ],
)

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(opencv_num_threads=0),
    # Seconds without a batch from a loader's workers, and seconds that ranks wait
    # for one another, after which a run ends with a message. The second one is
    # longer, so that the loader is named when it is the cause, and must allow for
    # what rank 0 does alone: the scores of a large test set.
    loader_timeout=300,
    dist_cfg=dict(timeout=600),
)
randomness = dict(seed=0)
load_from = None
resume = False
