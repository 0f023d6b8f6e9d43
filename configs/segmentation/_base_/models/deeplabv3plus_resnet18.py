# DeepLabv3+ on a ResNet-18 dilated to stride 16, for images of about 128 px
# on CPUs: a third of the work of stride 8; the skip connection keeps stride 4.
_base_ = 'deeplabv3plus_resnet50.py'
model = dict(
    backbone=dict(depth=18, output_stride=16),
    decode_head=dict(
        channels=128,
        # The map is 8 x 8: larger rates would see padding only.
        dilations=(1, 2, 4, 6),
        c1_channels=32,
    ),
    auxiliary_head=dict(channels=64),
)
