# SwAV on ImageNet, 800 epochs.
_base_ = '_base_/resnet50.py'
encoder = dict(
    title='SwAV',
    converter='swav',
    file_names=['swav_800ep_pretrain.pth.tar'],
    source='facebookresearch/swav, ResNet-50, 800 epochs',
    imagenet_top1=75.3,
    group='ssl',
)
