# SimCLR on CIFAR-10: InnerEye's cifar10_simclr.yaml.
_base_ = [
    '../_base_/models/simclr_resnet50.py',
    '../_base_/datasets/cifar_two_views.py',
    '../../data/cifar10.py',
    '../_base_/schedules/adam_warmup-coslr-2000e.py',
    '../default_runtime.py',
]
model = dict(
    backbone=dict(type='medssl_mm.ResNetSmallStem', depth=101, zero_init_residual=False)
)
