# Adam, 10 epochs of warm-up and cosine decay, both step by step, 2000 epochs,
# global batch 512.
optim_wrapper = dict(
    type='OptimWrapper',
    # No decay of biases and normalisation.
    constructor='medssl_mm.WeightDecayConstructor',
    optimizer=dict(
        type='Adam',
        lr=1e-3,
        weight_decay=1e-6,
        # One kernel for all tensors.
        fused=True,
    ),
)
# The decay ends with the run: changing max_epochs is enough, down to 11.
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        end=10,
        convert_to_iter_based=True,
    ),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=10, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2000)
auto_scale_lr = dict(enable=False, base_batch_size=512)
