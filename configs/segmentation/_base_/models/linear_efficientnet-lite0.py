# Linear decoder on the stages 1 to 4 of a frozen EfficientNet-Lite0 of timm, at the
# strides of its training (4 to 32).
_base_ = ['linear_resnet50.py', '../../../_base_/efficientnet-lite0.py']
model = dict(
    feature_cache_gib=1.0,
    # Whole images of any size would be padded by other amounts on each side.
    data_preprocessor=dict(size_divisor=32),
    backbone=dict(_delete_=True, **_base_.lite0),
)
