# Linear decoder on hand-made features of each pixel: CURVAS slices, protocol curvas-14.
_base_ = [
    '../_base_/models/linear_handmade.py',
    '../_base_/datasets/slices_128.py',
    '../../data/curvas.py',
    '../_base_/schedules/adamw_linear_400.py',
]
train_dataloader = dict(dataset=dict(pipeline=_base_.fixed_pipeline))
# Fewer than 100 slices.
param_scheduler = [
    dict(type='PolyLR', eta_min=1e-5, power=0.9, end=200, by_epoch=False)
]
train_cfg = dict(max_iters=200)
