# Linear decoder on the stages 1 to 4 of a frozen ResNet-50 dilated to stride 8.
# A stage alone: decode_head.in_index=0 (stage 1) to 3 (stage 4).
model = dict(
    type='medssl_mm.FrozenEncoderDecoder',
    # Images are normalised by the transforms of the data set.
    data_preprocessor=dict(type='SegDataPreProcessor', size_divisor=8),
    backbone=dict(
        type='medssl_mm.DilatedResNet',
        # not V1c: pretraining has the plain 7x7 stem
        network='ResNet',
        depth=50,
        # The network of the pretraining, whatever its own stride was.
        output_stride=8,
        # Random features need their residual branches.
        zero_init_residual=False,
        # FILE: --cfg-options model.backbone.init_cfg.checkpoint=FILE
        init_cfg=dict(type='medssl_mm.PretrainedBackbone', checkpoint=None),
    ),
    decode_head=dict(
        type='medssl_mm.LinearHead',
        in_index=[0, 1, 2, 3],
        align_corners=False,
        loss_decode=[
            dict(type='CrossEntropyLoss', avg_non_ignore=True),
            dict(type='medssl_mm.SoftDiceLoss'),
        ],
    ),
    test_cfg=dict(mode='whole'),
)
custom_hooks = [dict(type='medssl_mm.CalibrateRandomBackboneHook')]
sync_bn = 'torch'  # over several GPUs; CPUs and single GPUs keep plain BN
