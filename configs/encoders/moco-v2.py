# MoCo v2 on ImageNet, 800 epochs.
_base_ = '_base_/resnet50.py'
encoder = dict(
    title='MoCo v2',
    converter='moco-v2',
    file_names=['moco_v2_800ep_pretrain.pth.tar'],
    source='facebookresearch/moco, ResNet-50, 800 epochs',
    imagenet_top1=71.1,
    group='ssl',
)
