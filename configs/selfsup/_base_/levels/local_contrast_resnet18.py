# Contrast of matched regions on stage 4 of a ResNet-18.
local_levels = [
    dict(
        stage=4,
        neck=dict(type='medssl_mm.LocalContrastNeck', in_channels=512),
        loss=dict(type='medssl_mm.LocalInfoNCELoss'),
        weight=0.5,
        name='local')
]
# The last stage at stride 16: regions of its map are places, not quarters.
local_backbone = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
