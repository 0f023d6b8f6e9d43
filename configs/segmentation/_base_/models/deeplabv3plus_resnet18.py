# DeepLabv3+ on a ResNet-18, for images of about 128 px on CPUs.
_base_ = 'deeplabv3plus_resnet50.py'
model = dict(
    backbone=dict(depth=18),
    decode_head=dict(
        in_channels=512,
        channels=128,
        # The map is 16 x 16: larger rates would see padding only.
        dilations=(1, 3, 6, 9),
        c1_in_channels=64,
        c1_channels=32),
    auxiliary_head=dict(in_channels=256, channels=64))
