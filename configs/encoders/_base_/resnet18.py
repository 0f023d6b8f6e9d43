# ResNet-18 as in torchvision.
_base_ = 'imagenet_224.py'
encoder = dict(backbone=dict(type='mmpretrain.ResNet', depth=18), embedding_length=512)
