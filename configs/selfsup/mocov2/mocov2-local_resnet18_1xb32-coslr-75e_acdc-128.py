# MoCo v2 + contrast of local regions, views of 128 px, on ACDC (acdc-20).
_base_ = [
    '../_base_/models/mocov2_resnet18.py',
    '../_base_/levels/local_contrast.py',
    '../_base_/datasets/small_two_views_128.py',
    '../../data/acdc.py',
    '../_base_/schedules/sgd_coslr-150e_small.py',
    '../default_runtime.py',
]
model = dict(
    backbone=_base_.local_backbone, multi_level_head=dict(levels=_base_.local_levels)
)
# As many steps as at 64 px, of half the images, at half the rate.
optim_wrapper = dict(optimizer=dict(lr=0.03))
train_cfg = dict(max_epochs=75)
auto_scale_lr = dict(base_batch_size=32)
