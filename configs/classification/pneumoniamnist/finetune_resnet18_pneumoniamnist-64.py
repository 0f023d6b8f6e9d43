# Fine-tuning of all weights: PneumoniaMNIST, 64 px.
_base_ = [
    '../_base_/models/resnet18.py',
    '../_base_/datasets/pneumoniamnist.py',
    '../_base_/schedules/adamw_finetune_200.py',
]
model = dict(head=dict(type='LinearClsHead', num_classes=2))
train_dataloader = dict(sampler=dict(infinite=True))
