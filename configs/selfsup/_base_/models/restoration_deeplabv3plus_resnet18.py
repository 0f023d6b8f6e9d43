# Masked restoration by the encoder and the decoder of DeepLabv3+, with the settings
# of segmentation/_base_/models/deeplabv3plus_resnet18.py.
_base_ = 'restoration_resnet18.py'
model = dict(
    restoration=dict(
        decoder=dict(
            _delete_=True,
            type='mmseg.DepthwiseSeparableASPPHead',
            in_index=3,
            channels=128,
            dilations=(1, 2, 4, 6),
            c1_channels=32,
            norm_cfg=dict(type='BN'),
            align_corners=False,
        )
    )
)
