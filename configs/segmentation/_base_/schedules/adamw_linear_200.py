# As adamw_linear_400.py, for fewer than 100 slices.
_base_ = 'adamw_linear_400.py'
param_scheduler = [
    dict(type='PolyLR', eta_min=1e-5, power=0.9, end=200, by_epoch=False)
]
train_cfg = dict(max_iters=200)
