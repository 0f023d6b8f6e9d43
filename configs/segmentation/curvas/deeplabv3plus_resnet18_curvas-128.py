# DeepLabv3+ fine-tuning: CURVAS slices, protocol curvas-14, 3 organs.
_base_ = [
    '../_base_/models/deeplabv3plus_resnet18.py',
    '../_base_/datasets/slices_128.py',
    '../../data/curvas.py',
    '../_base_/schedules/adamw_finetune_500.py',
]
train_dataloader = dict(batch_size=8)
# Fewer than 100 slices.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=12, by_epoch=False),
    dict(type='PolyLR', eta_min=1e-6, power=0.9, begin=12, end=250, by_epoch=False),
]
train_cfg = dict(max_iters=250)
