# ResNet-50 as in torchvision.
_base_ = 'imagenet_224.py'
encoder = dict(
    backbone=dict(type='mmpretrain.ResNet', depth=50, style='pytorch'),
    embedding_length=2048,
)
