# What pretraining on eye photographs shares.
_base_ = 'images_two_views.py'
eye_colour = dict(
    type='medssl_mm.TorchvisionSteps',
    steps=[
        dict(
            type='RandomApply',
            p=0.8,
            transforms=[
                dict(
                    type='ColorJitter',
                    brightness=0.4,
                    contrast=0.4,
                    saturation=0.4,
                    # Bleedings are told by their red, a cataract by its yellow.
                    hue=0.05,
                )
            ],
        ),
        dict(type='RandomGrayscale', p=0.2),
    ],
)
