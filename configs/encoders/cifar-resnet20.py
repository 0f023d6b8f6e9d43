# ResNet-20, trained with labels on CIFAR-10.
_base_ = '_base_/cifar-resnet.py'
encoder = dict(
    title='CIFAR ResNet-20',
    backbone=dict(depth=20),
    file_names=['resnet20-12fca82f.th'],
    sha256='12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8',
)
