# EyePACS retina photographs, 299 px. The retina is round: it is turned by any
# angle, and mirrored, as the two eyes are.
_base_ = ['../_base_/datasets/images_two_views.py', '../../data/diabetic_retinopathy.py']
views = dict(
    type='medssl_mm.CropViews',
    crop=dict(
        type='medssl_mm.RandomCropView', size=299, scale=(0.4, 1.0), rotation=180
    ),
    transforms=[
        dict(
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
                            # Bleedings are told by their red.
                            hue=0.05,
                        )
                    ],
                ),
                dict(type='RandomGrayscale', p=0.2),
            ],
        ),
        # Small aneurysms are two or three pixels wide.
        dict(type='medssl_mm.BlurJitter', sigma=(0.1, 1.0), prob=0.5),
    ],
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            _base_.normalize,
            views,
            dict(type='medssl_mm.PackViews'),
        ],
    )
)
# About 28,000 labelled images: a longer queue would hold the images too.
settings_for = dict(MultiLevelMoCo=dict(model=dict(queue_len=16384)))
