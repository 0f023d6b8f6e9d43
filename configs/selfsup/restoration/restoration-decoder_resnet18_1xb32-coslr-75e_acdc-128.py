# Masked restoration by encoder and decoder of DeepLabv3+, on ACDC (acdc-20).
_base_ = [
    '../_base_/models/restoration_deeplabv3plus_resnet18.py',
    '../_base_/datasets/small_masked_views_128.py',
    '../../data/acdc.py',
    '../_base_/schedules/adam_warmup-coslr-150e_small.py',
    '../default_runtime.py',
]
# As many steps as the light decoder's, of half the images, at half the rate.
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_epochs=75)
auto_scale_lr = dict(base_batch_size=32)
