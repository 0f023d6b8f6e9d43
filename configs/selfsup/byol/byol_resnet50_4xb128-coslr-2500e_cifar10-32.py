# BYOL on CIFAR-10: InnerEye's cifar10_byol.yaml.
_base_ = [
    '../_base_/models/byol_resnet50.py',
    '../_base_/datasets/cifar_two_views.py',
    '../../data/cifar10.py',
    '../_base_/schedules/adam_warmup-coslr-2000e.py',
    '../default_runtime.py',
]
model = dict(backbone=dict(type='medssl_mm.ResNetSmallStem', zero_init_residual=False))
train_cfg = dict(max_epochs=2500)
