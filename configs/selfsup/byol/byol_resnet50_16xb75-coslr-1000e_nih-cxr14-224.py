# BYOL on NIH ChestX-ray14 (+rsna: RSNA), 224 px: InnerEye's strong augmentation.
_base_ = [
    '../_base_/models/byol_resnet50.py',
    '../_base_/datasets/xray_strong_views_224.py',
    '../../data/nih_cxr14.py',
    '../_base_/schedules/adam_warmup-coslr-2000e.py',
    '../default_runtime.py',
]
model = dict(backbone=dict(zero_init_residual=False))
train_cfg = dict(max_epochs=1000)
auto_scale_lr = dict(base_batch_size=1200)
