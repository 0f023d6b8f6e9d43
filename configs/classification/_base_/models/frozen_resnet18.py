# Linear head on a frozen ResNet-18, which stays in evaluation mode.
_base_ = 'frozen_resnet50.py'
model = dict(backbone=dict(depth=18), head=dict(in_channels=512))
