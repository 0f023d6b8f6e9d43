# Last layer only: RSNA chest X-rays, 224 px, lung opacity or none.
_base_ = [
    '../_base_/models/frozen_resnet50.py',
    '../_base_/datasets/xray_224.py',
    '../../data/rsna.py',
    '../_base_/schedules/adam_1e-4_100e.py',
]
train_dataloader = dict(batch_size=16)
# One image in five shows an opacity.
model = dict(head=dict(loss=dict(type='CrossEntropyLoss', class_weight=[0.225, 0.775])))
train_cfg = dict(max_epochs=200)
