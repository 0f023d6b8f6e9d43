# ResNet-44, trained with labels on CIFAR-10.
_base_ = '_base_/cifar-resnet.py'
encoder = dict(
    title='CIFAR ResNet-44',
    backbone=dict(depth=44),
    file_names=['resnet44-014dd654.th'],
    sha256='014dd6541728a1c700b1642ab640e211dc6eb8ed507d70697458dc8f8a0ae2e4',
)
