# BYOL on ImageNet, 1000 epochs; padded as in its training, by Haiku.
_base_ = '_base_/resnet50.py'
encoder = dict(
    title='BYOL',
    backbone=dict(type='medssl_mm.ResNetSamePadding'),
    converter='byol',
    file_names=['pretrain_res50x1.pkl', 'pretrain_res50x1.pth.tar'],
    source='google-deepmind/deepmind-research, byol, ResNet-50 1x',
    imagenet_top1=74.3,
    group='ssl',
)
