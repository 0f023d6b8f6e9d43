# As adamw_finetune_500.py, for fewer than 100 slices.
_base_ = 'adamw_finetune_500.py'
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=12, by_epoch=False),
    dict(type='PolyLR', eta_min=1e-6, power=0.9, begin=12, end=250, by_epoch=False),
]
train_cfg = dict(max_iters=250)
