# Masked restoration by a ResNet-18 and a light decoder, for small images. The last
# stage is at stride 16, the side of a patch, so that a cell is hidden or is not.
_base_ = '../levels/decoders.py'
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
    restoration=dict(type='medssl_mm.RestorationHead', decoder=_base_.light_decoder),
)
