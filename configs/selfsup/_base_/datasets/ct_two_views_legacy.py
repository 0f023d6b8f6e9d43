# Slices at 336 px, in file order, views as of the released code, but for
# RandAugment: turns and jitter of about its strength stand in.
_base_ = 'ct_two_views.py'
train_dataloader = dict(
    batch_size=64,
    sampler=dict(shuffle=False),
    dataset=dict(
        pipeline=[
            dict(type='medssl_mm.LoadSlice'),
            _base_.normalize,
            dict(
                type='medssl_mm.CropViews',
                crop=dict(
                    type='medssl_mm.RandomCropView',
                    size=336,
                    scale=(0.2, 1.0),
                    flip_prob=0.0,
                    rotation=30,
                ),
                transforms=[
                    dict(type='medssl_mm.IntensityJitter', brightness=0.3, contrast=0.5)
                ],
            ),
            dict(type='medssl_mm.PackViews'),
        ]
    ),
)
