# The 2D U-Net of nnU-Net for small images: five resolutions, strided and transposed
# convolutions, instance normalisation, losses at every resolution but the two lowest.
loss_decode = [
    dict(type='CrossEntropyLoss', avg_non_ignore=True),
    dict(type='medssl_mm.SoftDiceLoss'),
]
head = dict(
    type='FCNHead',
    num_convs=0,
    concat_input=False,
    dropout_ratio=0.0,
    align_corners=False,
)
model = dict(
    type='EncoderDecoder',
    # Images are normalised by the transforms of the data set.
    data_preprocessor=dict(type='SegDataPreProcessor', size_divisor=16),
    backbone=dict(
        type='UNet',
        base_channels=32,
        strides=(1, 2, 2, 2, 2),
        norm_cfg=dict(type='IN', affine=True),
        act_cfg=dict(type='LeakyReLU', negative_slope=0.01, inplace=True),
        upsample_cfg=dict(type='DeconvModule', kernel_size=2),
    ),
    decode_head=dict(
        **head, in_index=4, in_channels=32, channels=32, loss_decode=loss_decode
    ),
    # Each loss counts half of that of the next higher resolution.
    auxiliary_head=[
        dict(
            **head,
            in_index=index,
            in_channels=channels,
            channels=channels,
            loss_decode=[dict(loss, loss_weight=weight) for loss in loss_decode],
        )
        for index, channels, weight in ((3, 64, 0.5), (2, 128, 0.25))
    ],
    test_cfg=dict(mode='whole'),
)
