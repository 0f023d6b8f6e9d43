# Fine-tuning of all weights: PneumoniaMNIST, 64 px.
_base_ = [
    '../_base_/models/resnet50.py',
    '../_base_/datasets/pneumoniamnist.py',
    '../_base_/schedules/adamw_finetune_200.py',
]
model = dict(backbone=dict(depth=18))
train_dataloader = dict(sampler=dict(infinite=True))
