# EyePACS retina photographs, 299 px. The retina is round: it is turned by any
# angle, and mirrored, as the two eyes are.
_base_ = ['../_base_/datasets/eyes_two_views.py', '../../data/diabetic_retinopathy.py']
views = dict(
    type='medssl_mm.CropViews',
    crop=dict(
        type='medssl_mm.RandomCropView', size=299, scale=(0.4, 1.0), rotation=180
    ),
    transforms=[
        _base_.eye_colour,
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
