# BYOL on CIFAR-10 with a small network, for a CPU.
_base_ = [
    '../_base_/models/byol_resnet18.py',
    '../_base_/datasets/cifar_two_views.py',
    '../../data/cifar10.py',
    '../_base_/schedules/adam_warmup-coslr-150e_small.py',
    '../default_runtime.py',
]
model = dict(backbone=dict(type='medssl_mm.ResNetSmallStem', zero_init_residual=False))
train_cfg = dict(max_epochs=100)
train_dataloader = dict(batch_size=256, num_workers=1)
auto_scale_lr = dict(base_batch_size=256)
