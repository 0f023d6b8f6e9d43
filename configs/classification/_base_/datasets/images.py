# What classification on image sets shares: every image of val and test is
# evaluated, once.
normalize = dict(type='medssl_mm.NormalizeByStore')
each_image_once = dict(type='DefaultSampler', shuffle=False, round_up=False)
# Mild, for stained tissue.
colour_jitter = dict(
    type='RandomApply',
    p=0.8,
    transforms=[
        dict(type='ColorJitter', brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05)
    ],
)
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='medssl_mm.ResumableSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='medssl_mm.ClassificationImages', subset='train', labelled=True),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=each_image_once,
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='medssl_mm.ClassificationImages',
        subset='val',
        labelled=True,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=each_image_once,
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='medssl_mm.ClassificationImages',
        subset='test',
        labelled=True,
        test_mode=True,
    ),
)
