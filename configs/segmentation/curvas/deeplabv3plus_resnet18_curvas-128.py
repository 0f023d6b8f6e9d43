# DeepLabv3+ fine-tuning: CURVAS slices, protocol curvas-14, 3 organs.
_base_ = [
    '../_base_/models/deeplabv3plus_resnet18.py',
    '../_base_/datasets/curvas_128.py',
    '../_base_/schedules/adamw_finetune_250.py',
]
model = dict(decode_head=dict(num_classes=4), auxiliary_head=dict(num_classes=4))
train_dataloader = dict(batch_size=8)
