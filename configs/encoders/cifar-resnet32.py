# ResNet-32, trained with labels on CIFAR-10.
_base_ = '_base_/cifar-resnet.py'
encoder = dict(
    title='CIFAR ResNet-32',
    backbone=dict(depth=32),
    file_names=['resnet32-d509ac18.th'],
    sha256='d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850',
)
