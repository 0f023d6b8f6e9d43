# Last layer only: PneumoniaMNIST, 64 px.
_base_ = [
    '../_base_/models/frozen_resnet18.py',
    '../_base_/datasets/pneumoniamnist.py',
    '../_base_/schedules/adamw_lastlayer_200.py',
]
model = dict(head=dict(type='LinearClsHead', num_classes=2))
train_dataloader = dict(sampler=dict(infinite=True))
