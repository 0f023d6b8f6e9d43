# What pretraining on image sets (classification data) shares.
normalize = dict(type='medssl_mm.NormalizeByStore')
# For photographs in colour; what a colour means limits the hue.
colour_jitter = dict(
    type='RandomApply',
    p=0.8,
    transforms=[
        dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    ],
)
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='medssl_mm.ResumableSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='medssl_mm.ClassificationImages', subset='pretrain'),
)
