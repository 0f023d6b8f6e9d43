# Masked restoration by a ResNet-18 and a light decoder, for small images. The last
# stage is at stride 16, the side of a patch, so that a cell is hidden or is not.
model = dict(
    type='medssl_mm.MaskedRestoration',
    denoise=True,
    channels_last=True,
    backbone=dict(
        type='medssl_mm.DilatedResNet',
        depth=18,
        output_stride=16,
        norm_cfg=dict(type='BN'),
        # FILE: --cfg-options model.backbone.init_cfg.checkpoint=FILE
        init_cfg=dict(type='medssl_mm.PretrainedBackbone', checkpoint=None),
    ),
    restoration=dict(
        type='medssl_mm.RestorationHead',
        decoder=dict(
            type='mmseg.FCNHead',
            in_index=[0, 1, 2, 3],
            input_transform='resize_concat',
            channels=64,
            num_convs=1,
            concat_input=False,
            norm_cfg=dict(type='BN'),
            align_corners=False,
        ),
    ),
)
