# Linear decoder on a frozen ResNet-18 dilated to stride 8.
_base_ = 'linear_resnet50.py'
model = dict(backbone=dict(depth=18), decode_head=dict(in_channels=512))
