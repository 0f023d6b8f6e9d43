# DeepLabv3+ fine-tuning: ACDC, protocol acdc-20, 3 structures.
_base_ = [
    '../_base_/models/deeplabv3plus_resnet18.py',
    '../_base_/datasets/acdc_128.py',
    '../_base_/schedules/adamw_finetune_500.py',
]
model = dict(decode_head=dict(num_classes=4), auxiliary_head=dict(num_classes=4))
train_dataloader = dict(batch_size=8)
