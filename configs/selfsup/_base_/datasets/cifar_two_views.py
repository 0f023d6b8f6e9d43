# Two views of CIFAR images, augmented as by InnerEye (lightning-bolts).
_base_ = 'images_two_views.py'
views = dict(
    type='medssl_mm.ImageViews',
    transforms=[
        dict(
            type='medssl_mm.TorchvisionSteps',
            steps=[
                dict(type='RandomResizedCrop', size=32),
                dict(type='RandomHorizontalFlip'),
                dict(
                    type='RandomApply',
                    p=0.8,
                    transforms=[
                        dict(
                            type='ColorJitter',
                            brightness=0.8,
                            contrast=0.8,
                            saturation=0.8,
                            hue=0.2,
                        )
                    ],
                ),
                dict(type='RandomGrayscale', p=0.2),
                dict(
                    type='RandomApply',
                    p=0.5,
                    transforms=[
                        dict(type='GaussianBlur', kernel_size=3, sigma=(0.1, 2.0))
                    ],
                ),
            ],
        ),
    ],
)
train_dataloader = dict(
    batch_size=128,
    dataset=dict(pipeline=[views, dict(type='medssl_mm.PackViews')]),
)
