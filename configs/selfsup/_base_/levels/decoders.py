# Decoders of masked restoration, alone or beside another loss, and of terms on the
# map of a decoder; and the step that draws what is hidden.
light_decoder = dict(
    type='mmseg.FCNHead',
    in_index=[0, 1, 2, 3],
    input_transform='resize_concat',
    channels=64,
    num_convs=1,
    concat_input=False,
    norm_cfg=dict(type='BN'),
    align_corners=False,
)
# That of segmentation/_base_/models/deeplabv3plus_resnet18.py, whose weights it
# becomes. Rates up to 6 need a map of 8 x 8 cells, 128 px at stride 16: in a smaller
# one their outer taps meet padding alone and keep their random start.
deeplabv3plus_decoder = dict(
    type='mmseg.DepthwiseSeparableASPPHead',
    in_index=3,
    channels=128,
    dilations=(1, 2, 4, 6),
    c1_channels=32,
    norm_cfg=dict(type='BN'),
    align_corners=False,
)
# For restoration. A patch has the side of a cell of the last map, so that a cell is
# hidden or is not.
hide_patches = dict(type='medssl_mm.HidePatches', patch_size=16)
