# Eye photographs of ODIR, 64 px. The retina is round: it is turned by any angle,
# and mirrored, as the two eyes are. Not blurred: a cataract is told by its blur.
_base_ = ['../_base_/datasets/images_two_views.py', '../../data/odir.py']
views = dict(
    type='medssl_mm.CropViews',
    crop=dict(
        type='medssl_mm.RandomCropView', size=64, scale=(0.4, 1.0), rotation=180
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
                            hue=0.05,
                        )
                    ],
                ),
                dict(type='RandomGrayscale', p=0.2),
            ],
        ),
    ],
)
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(
        pipeline=[
            _base_.normalize,
            views,
            dict(type='medssl_mm.PackViews'),
        ],
    ),
)
train_cfg = dict(max_epochs=60)
