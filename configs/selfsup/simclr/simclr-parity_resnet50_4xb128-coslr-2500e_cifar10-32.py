# SimCLR on CIFAR-10 as of InnerEye's later code, CIFAR10SimCLR: statistics of
# each view for itself, decay of all parameters.
_base_ = [
    '../_base_/models/simclr_resnet50.py',
    '../_base_/datasets/cifar_two_views.py',
    '../../data/cifar10.py',
    '../_base_/schedules/adam_warmup-coslr-2000e.py',
    '../default_runtime.py',
]
model = dict(
    joint_views=False,
    backbone=dict(type='medssl_mm.ResNetSmallStem', zero_init_residual=False),
)
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor', optimizer=dict(lr=4e-4)
)
train_cfg = dict(max_epochs=2500)
