# Breast histopathology, patches of 50 px shown at 255 px. Tissue has no
# upright position: the eight turns and mirror images are all drawn.
_base_ = ['../_base_/datasets/images_two_views.py', '../../data/idc.py']
views = dict(
    type='medssl_mm.ImageViews',
    transforms=[
        dict(
            type='medssl_mm.TorchvisionSteps',
            steps=[
                dict(type='RandomResizedCrop', size=255, scale=(0.4, 1.0)),
                _base_.colour_jitter,
                dict(type='RandomGrayscale', p=0.2),
                dict(type='RandomHorizontalFlip'),
                dict(type='RandomVerticalFlip'),
                dict(
                    type='RandomApply',
                    transforms=[dict(type='RandomRotation', degrees=(90, 90))],
                ),
            ],
        ),
        dict(type='medssl_mm.BlurJitter', sigma=(0.1, 2.0), prob=0.5),
    ],
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[views, dict(type='medssl_mm.PackViews')],
    )
)
