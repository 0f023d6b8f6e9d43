# What classification of eye photographs shares.
_base_ = 'images.py'
eye_colour = dict(
    type='medssl_mm.TorchvisionSteps',
    steps=[
        dict(
            type='RandomApply',
            p=0.8,
            transforms=[
                dict(type='ColorJitter', brightness=0.2, contrast=0.2, saturation=0.2)
            ],
        ),
    ],
)
