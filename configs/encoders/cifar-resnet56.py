# ResNet-56, trained with labels on CIFAR-10.
_base_ = '_base_/cifar-resnet.py'
encoder = dict(
    title='CIFAR ResNet-56',
    backbone=dict(depth=56),
    file_names=['resnet56-4bfd9763.th'],
    sha256='4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367',
)
