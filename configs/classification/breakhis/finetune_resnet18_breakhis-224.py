# Fine-tuning of all weights: BreakHis, 224 px, benign or malignant.
_base_ = [
    '../_base_/models/resnet18.py',
    '../_base_/datasets/breakhis.py',
    '../_base_/schedules/adamw_finetune_200.py',
]
model = dict(
    backbone=dict(in_channels=3), head=dict(type='LinearClsHead', num_classes=2)
)
train_dataloader = dict(sampler=dict(infinite=True))
