# MoCo v2 + local contrast + masked restoration of the query's view, on ACDC.
_base_ = [
    '../_base_/models/mocov2_resnet18.py',
    '../_base_/levels/local_contrast.py',
    '../_base_/levels/decoders.py',
    '../_base_/datasets/small_two_views.py',
    '../../data/acdc.py',
    '../_base_/schedules/sgd_coslr-150e_small.py',
    '../default_runtime.py',
]
model = dict(
    backbone=_base_.local_backbone,
    multi_level_head=dict(levels=_base_.local_levels),
    restoration=dict(type='medssl_mm.RestorationHead', decoder=_base_.light_decoder),
)
steps = _base_.train_dataloader.dataset.pipeline
train_dataloader = dict(
    dataset=dict(pipeline=[*steps[:-1], _base_.hide_patches, steps[-1]])
)
