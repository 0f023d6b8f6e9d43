# Adam as of InnerEye's later code: the rate changes once per epoch and is 0 in
# the first one (1e-12 of the rate, since the scheduler divides by the start),
# 1e-4 for each of 4 GPUs, decay by parameter name.
_base_ = 'adam_warmup-coslr-2000e.py'
optim_wrapper = dict(optimizer=dict(lr=4e-4), paramwise_cfg=dict(by_name=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-12, by_epoch=True, end=10),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=10),
]
train_cfg = dict(max_epochs=2500)
