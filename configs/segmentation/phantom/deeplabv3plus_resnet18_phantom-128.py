# DeepLabv3+ fine-tuning: CT phantom, protocol phantom-24, 13 organs.
_base_ = [
    '../_base_/models/deeplabv3plus_resnet18.py',
    '../_base_/datasets/slices_128.py',
    '../../data/phantom.py',
    '../_base_/schedules/adamw_finetune_500.py',
]
train_dataloader = dict(batch_size=8)
