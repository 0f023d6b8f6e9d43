# DeepLabv3+ fine-tuning: CT phantom, protocol phantom-24, 13 organs.
_base_ = [
    '../_base_/models/deeplabv3plus_resnet18.py',
    '../_base_/datasets/phantom_128.py',
    '../_base_/schedules/adamw_finetune_500.py',
]
model = dict(decode_head=dict(num_classes=14), auxiliary_head=dict(num_classes=14))
train_dataloader = dict(batch_size=8)
