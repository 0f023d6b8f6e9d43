# What pretraining on image sets (classification data) shares.
_base_ = '../../../_base_/intensity/grey_8bit.py'
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='medssl_mm.SliceSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='medssl_mm.ClassificationImages', subset='pretrain'))
