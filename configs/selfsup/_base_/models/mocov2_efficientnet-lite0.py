# MoCo v2 with EfficientNet-Lite0 for small images and small data sets.
_base_ = ['mocov2_resnet18.py', '../../../_base_/efficientnet-lite0.py']
model = dict(backbone=dict(_delete_=True, **_base_.lite0))
