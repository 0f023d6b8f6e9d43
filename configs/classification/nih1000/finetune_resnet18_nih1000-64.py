# Fine-tuning of all weights: 1000 X-rays of NIH ChestX-ray14, 64 px.
_base_ = [
    '../_base_/models/resnet18.py',
    '../_base_/datasets/nih1000.py',
    '../_base_/schedules/adamw_finetune_200.py',
]
model = dict(head=dict(type='MultiLabelLinearClsHead', num_classes=14))
train_dataloader = dict(sampler=dict(infinite=True))
