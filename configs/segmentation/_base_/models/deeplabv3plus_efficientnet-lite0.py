# DeepLabv3+ on an EfficientNet-Lite0 of timm, for images of about 128 px on CPUs. The
# encoder keeps stride 32, that of its training: dilated it would be another network.
_base_ = ['deeplabv3plus_resnet18.py', '../../../_base_/efficientnet-lite0.py']
model = dict(
    data_preprocessor=dict(size_divisor=32),
    backbone=dict(_delete_=True, **_base_.lite0),
    # The map is 4 x 4: larger rates would see padding only.
    decode_head=dict(dilations=(1, 2, 3)),
)
