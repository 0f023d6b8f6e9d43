# ResNet-18, trained with labels, of the model zoo of mmpretrain.
_base_ = '_base_/resnet18.py'
encoder = dict(
    title='ResNet-18 (mmpretrain)',
    file_names=['resnet18_8xb32_in1k_20210831-fbbb1da6.pth'],
    source='model zoo of mmpretrain, resnet18',
    imagenet_top1=69.9,
    group='supervised',
)
