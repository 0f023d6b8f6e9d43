# MoCo v2 + contrast of local regions, also at the output of DeepLabv3+'s decoder, which
# goes on in fine-tuning, on ACDC (acdc-20).
_base_ = [
    'mocov2-local_resnet18_1xb32-coslr-75e_acdc-128.py',
    '../_base_/levels/decoders.py',
]
at_decoder = dict(_base_.local_levels[0], stage='decoder')
model = dict(
    decoder=_base_.deeplabv3plus_decoder,
    multi_level_head=dict(levels=[*_base_.local_levels, at_decoder]),
)
