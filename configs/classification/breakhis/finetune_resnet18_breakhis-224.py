# Fine-tuning of all weights: BreakHis, 224 px, benign or malignant.
_base_ = [
    '../_base_/models/resnet50.py',
    '../data/breakhis.py',
    '../_base_/schedules/adamw_finetune_200.py',
]
model = dict(backbone=dict(depth=18))
train_dataloader = dict(sampler=dict(infinite=True))
