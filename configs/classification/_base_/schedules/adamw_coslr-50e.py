# AdamW for fine-tuning, warm-up of one epoch, cosine decay, 50 epochs.
_base_ = '../../default_runtime.py'
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-4, weight_decay=0.01),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=1, convert_to_iter_based=True),
    # Ends with the run: changing max_epochs is enough.
    dict(type='CosineAnnealingLR'),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=50)
auto_scale_lr = dict(enable=False, base_batch_size=32)
