# A 2D U-Net of nnU-Net's kind for images of 128 px: six resolutions down to a map of
# 4 x 4, strided and transposed convolutions, instance normalisation, losses at every
# resolution but the two lowest. What differs stands in segmentation/README.md.
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
# Place among the decoder's maps and their channels, finest first. Each loss counts
# half of that of the next higher resolution; all together they count 1.
supervised = ((5, 32, 8 / 15), (4, 64, 4 / 15), (3, 128, 2 / 15), (2, 256, 1 / 15))
heads = [
    dict(
        **head,
        in_index=index,
        in_channels=channels,
        channels=channels,
        loss_decode=[dict(loss, loss_weight=weight) for loss in loss_decode],
    )
    for index, channels, weight in supervised
]
model = dict(
    type='EncoderDecoder',
    # Images are normalised by the transforms of the data set.
    data_preprocessor=dict(type='SegDataPreProcessor', size_divisor=32),
    backbone=dict(
        type='UNet',
        base_channels=32,
        num_stages=6,
        strides=(1, 2, 2, 2, 2, 2),
        downsamples=(True,) * 5,
        enc_num_convs=(2,) * 6,
        dec_num_convs=(2,) * 5,
        enc_dilations=(1,) * 6,
        dec_dilations=(1,) * 5,
        norm_cfg=dict(type='IN', affine=True),
        act_cfg=dict(type='LeakyReLU', negative_slope=0.01, inplace=True),
        upsample_cfg=dict(type='DeconvModule', kernel_size=2),
    ),
    decode_head=heads[0],
    auxiliary_head=heads[1:],
    test_cfg=dict(mode='whole'),
)
