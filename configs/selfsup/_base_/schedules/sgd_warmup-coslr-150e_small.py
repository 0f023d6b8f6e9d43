# SGD in place of Adam, for BYOL with small networks and data sets, global batch 64:
# in a few thousand steps it learns more (docs/results.md).
_base_ = 'adam_warmup-coslr-2000e.py'
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=0.03, momentum=0.9, weight_decay=5e-4)
)
train_cfg = dict(max_epochs=150)
auto_scale_lr = dict(base_batch_size=64)
