# SimCLR on CIFAR-10 with a small network, for a CPU or one GPU.
_base_ = [
    '../_base_/models/simclr_resnet18.py',
    '../_base_/datasets/cifar_two_views.py',
    '../../data/cifar10.py',
    '../_base_/schedules/adam_warmup-coslr-150e_small.py',
    '../default_runtime.py',
]
model = dict(backbone=dict(type='medssl_mm.ResNetSmallStem', zero_init_residual=False))
train_cfg = dict(max_epochs=80)
train_dataloader = dict(batch_size=64, num_workers=1)
