# SimCLR on ImageNet, 1000 epochs; pictures in [0, 1], pooling as in TensorFlow.
_base_ = '_base_/resnet50.py'
encoder = dict(
    title='SimCLR',
    backbone=dict(type='medssl_mm.ResNetSamePadding', convolutions=False),
    preprocessing=dict(normalisation='unit'),
    converter='simclr-v1',
    file_names=['**/model.ckpt-225206.index', 'resnet50-1x.pth'],
    source='google-research/simclr, ResNet50_1x.zip, unpacked',
    imagenet_top1=69.3,
    group='ssl',
)
