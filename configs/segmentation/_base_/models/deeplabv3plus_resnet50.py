# DeepLabv3+ on a ResNet-50 dilated to stride 8, everything trained.
loss_decode = [
    dict(type='CrossEntropyLoss', avg_non_ignore=True),
    dict(type='medssl_mm.SoftDiceLoss'),
]
model = dict(
    type='EncoderDecoder',
    # Images are normalised by the transforms of the data set.
    data_preprocessor=dict(type='SegDataPreProcessor', size_divisor=8),
    backbone=dict(
        type='medssl_mm.DilatedResNet',
        # not V1c: pretraining has the plain 7x7 stem
        network='ResNet',
        depth=50,
        # The network of the pretraining, whatever its own stride was.
        output_stride=8,
        # FILE: --cfg-options model.backbone.init_cfg.checkpoint=FILE
        init_cfg=dict(type='medssl_mm.PretrainedBackbone', checkpoint=None),
    ),
    decode_head=dict(
        type='DepthwiseSeparableASPPHead',
        in_index=3,
        channels=512,
        dilations=(1, 12, 24, 36),
        c1_channels=48,
        norm_cfg=dict(type='BN'),
        align_corners=False,
        loss_decode=loss_decode,
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        norm_cfg=dict(type='BN'),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.4),
    ),
    test_cfg=dict(mode='whole'),
)
sync_bn = 'torch'  # over several GPUs; CPUs and single GPUs keep plain BN
