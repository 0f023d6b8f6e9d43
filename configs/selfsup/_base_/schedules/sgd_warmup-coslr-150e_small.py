# SGD in place of Adam, for BYOL with small networks and data sets, global batch 64:
# in a few thousand steps it learns more (docs/experiments.md).
_base_ = 'adam_warmup-coslr-150e_small.py'
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=0.03, momentum=0.9, weight_decay=5e-4)
)
