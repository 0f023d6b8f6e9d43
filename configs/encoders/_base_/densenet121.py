# DenseNet-121; its last map is the one after the final normalisation and ReLU.
_base_ = 'imagenet_224.py'
encoder = dict(
    backbone=dict(type='mmpretrain.DenseNet', arch='121'), embedding_length=1024
)
