# NIH ChestX-ray14 at 512 px; pretraining sees the official train_val list.
_base_ = ['images_two_views.py', '../../../data/nih_cxr14.py']
views = dict(
    type='medssl_mm.CropViews',
    crop=dict(
        type='medssl_mm.RandomCropView',
        size=512,
        # Not as small as for photographs: most findings are local.
        scale=(0.4, 1.0),
        # The heart lies on one side.
        flip_prob=0.0,
        rotation=30,
    ),
    transforms=[
        dict(type='medssl_mm.IntensityJitter', brightness=0.2, contrast=0.4),
        dict(type='medssl_mm.GammaJitter', prob=0.3),
        dict(type='medssl_mm.BlurJitter', sigma=(0.1, 2.0), prob=0.5),
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
