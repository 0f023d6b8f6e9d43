# MoCo v2 with EfficientNet-Lite0 + contrast of local regions on stage 3, on ACDC: the
# map of stage 4 has four places, and a dilated one would be another network.
_base_ = [
    'mocov2_efficientnet-lite0_1xb64-coslr-150e_acdc-64.py',
    '../_base_/levels/local_contrast.py',
]
model = dict(multi_level_head=dict(levels=_base_.local_levels[:1]))
