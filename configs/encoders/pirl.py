# PIRL on ImageNet, 200 epochs, of PyContrast.
_base_ = '_base_/resnet50.py'
encoder = dict(
    title='PIRL',
    converter='pirl',
    file_names=['PIRL.pth'],
    source='HobbitLong/PyContrast, PIRL, ResNet-50',
    imagenet_top1=61.7,
    group='ssl',
)
