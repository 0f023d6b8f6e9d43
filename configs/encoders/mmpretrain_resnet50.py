# ResNet-50, trained with labels, of the model zoo of mmpretrain.
_base_ = '_base_/resnet50.py'
encoder = dict(
    title='ResNet-50 (mmpretrain)',
    file_names=['resnet50_8xb32_in1k_20210831-ea4938fc.pth'],
    source='model zoo of mmpretrain, resnet50',
    imagenet_top1=76.55,
    group='supervised',
)
