# Contrast of matched regions on the stages 3 and 4, of any backbone.
local_levels = [
    dict(
        stage=stage,
        neck=dict(type='medssl_mm.LocalContrastNeck'),
        loss=dict(type='medssl_mm.LocalInfoNCELoss'),
        weight=0.5,
        name='local',
    )
    for stage in (3, 4)
]
# The last stage at stride 16: the regions of its map are places, not quarters.
# Checkpoints of before it had dilated blocks of mmselfsup, another network:
# type='ResNet', strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), which is
# model.backbone.legacy_dilation=True now.
local_backbone = dict(type='medssl_mm.DilatedResNet', output_stride=16)
