# Two views of 64 px of chest X-rays, for small networks.
_base_ = 'small_two_views.py'
views = dict(
    type='medssl_mm.CropViews',
    crop=dict(
        type='medssl_mm.RandomCropView',
        size=64,
        scale=(0.2, 1.0),
        # The heart lies on one side.
        flip_prob=0.0,
    ),
    transforms=_base_.view_transforms,
)
train_dataloader = dict(
    dataset=dict(
        type='medssl_mm.ClassificationImages',
        pipeline=[
            _base_.normalize,
            views,
            dict(type='medssl_mm.PackViews'),
        ],
    )
)
