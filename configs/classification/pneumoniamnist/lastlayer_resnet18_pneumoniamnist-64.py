# Last layer only: PneumoniaMNIST, 64 px.
_base_ = [
    '../_base_/models/frozen_resnet50.py',
    '../_base_/datasets/pneumoniamnist.py',
    '../_base_/schedules/adamw_lastlayer_200.py',
]
model = dict(backbone=dict(depth=18))
train_dataloader = dict(sampler=dict(infinite=True))
