# BYOL on 1000 chest X-rays, protocol nih1000-patients.
_base_ = [
    '../_base_/models/byol_resnet18.py',
    '../_base_/datasets/xray_two_views_64.py',
    '../../data/nih1000.py',
    '../_base_/schedules/sgd_warmup-coslr-150e_small.py',
    '../default_runtime.py',
]
train_cfg = dict(max_epochs=100)
