# MoCo v2 + local contrast + masked restoration of the query's view, on ACDC.
_base_ = [
    '../_base_/models/mocov2_resnet18.py',
    '../_base_/levels/local_contrast.py',
    '../_base_/datasets/small_two_views.py',
    '../../data/acdc.py',
    '../_base_/schedules/sgd_coslr-150e_small.py',
    '../default_runtime.py',
]
decoder = dict(type='mmseg.FCNHead', in_index=[0, 1, 2, 3], channels=64, num_convs=1)
decoder.update(input_transform='resize_concat', norm_cfg=dict(type='BN'))
decoder.update(concat_input=False, align_corners=False)
model = dict(
    backbone=_base_.local_backbone,
    multi_level_head=dict(levels=_base_.local_levels),
    restoration=dict(type='medssl_mm.RestorationHead', decoder=decoder),
)
steps = _base_.train_dataloader.dataset.pipeline
hide = dict(type='medssl_mm.HidePatches', patch_size=16)
train_dataloader = dict(dataset=dict(pipeline=[*steps[:-1], hide, steps[-1]]))
