# DeepLabv3+ fine-tuning of EfficientNet-Lite0: ACDC, protocol acdc-20.
_base_ = [
    '../_base_/models/deeplabv3plus_efficientnet-lite0.py',
    '../_base_/datasets/slices_128.py',
    '../../data/acdc.py',
    '../_base_/schedules/adamw_finetune_500.py',
]
train_dataloader = dict(batch_size=8)
