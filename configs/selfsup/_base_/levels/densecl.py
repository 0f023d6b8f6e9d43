# The dense term of DenseCL on the last map. It and the contrastive loss
# (model.contrast_weight) count half each, as published.
densecl_levels = [
    dict(
        stage=4,
        neck=dict(type='medssl_mm.DenseContrastNeck'),
        loss=dict(type='medssl_mm.DenseInfoNCELoss'),
        weight=0.5,
        name='dense',
    )
]
# As in local_contrast.py: of a small view there are 4 places at stride 32.
densecl_backbone = dict(type='medssl_mm.DilatedResNet', output_stride=16)
