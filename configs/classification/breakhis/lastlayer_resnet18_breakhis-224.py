# Last layer only: BreakHis, 224 px, benign or malignant.
_base_ = [
    '../_base_/models/frozen_resnet50.py',
    '../data/breakhis.py',
    '../_base_/schedules/adamw_lastlayer_200.py',
]
model = dict(backbone=dict(depth=18))
train_dataloader = dict(sampler=dict(infinite=True))
