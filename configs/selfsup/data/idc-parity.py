# Breast histopathology augmented as in the published code of "Intermediate
# Layers Matter", on its split lists.
_base_ = ['../_base_/datasets/images_two_views.py', '../../data/idc.py']
images = dict(split='idc-lists')
views = dict(
    type='medssl_mm.ImageViews',
    transforms=[
        dict(
            type='medssl_mm.TorchvisionSteps',
            steps=[
                dict(type='Resize', size=256),
                dict(type='CenterCrop', size=255),
                dict(type='RandomResizedCrop', size=255, scale=(0.4, 1.0)),
                _base_.colour_jitter,
                dict(type='RandomGrayscale', p=0.2),
                # A flip and a blur may change places.
                dict(type='RandomHorizontalFlip'),
            ],
        ),
        dict(type='medssl_mm.BlurJitter', sigma=(0.1, 2.0), prob=0.5),
    ],
)
train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        subset='train',
        pipeline=[views, dict(type='medssl_mm.PackViews')],
    ),
)
auto_scale_lr = dict(base_batch_size=32)
