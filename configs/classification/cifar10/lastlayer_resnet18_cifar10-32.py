# Last layer only: CIFAR-10, 32 px, stem for small images.
_base_ = [
    '../_base_/models/frozen_resnet50.py',
    '../_base_/datasets/cifar_32.py',
    '../../data/cifar10.py',
    '../_base_/schedules/adam_1e-4_100e.py',
]
model = dict(backbone=dict(type='medssl_mm.ResNetSmallStem', depth=18))
train_dataloader = dict(batch_size=16, num_workers=1)
