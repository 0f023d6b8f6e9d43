# EyePACS augmented as in the published code of "Intermediate Layers Matter".
# Its split by image, which parted the eyes of a patient, is not followed.
_base_ = ['../_base_/datasets/images_two_views.py', '../../data/diabetic_retinopathy.py']
views = dict(
    type='medssl_mm.ImageViews',
    transforms=[
        dict(
            type='medssl_mm.TorchvisionSteps',
            steps=[
                _base_.colour_jitter,
                dict(type='RandomGrayscale', p=0.2),
            ],
        ),
        dict(type='medssl_mm.BlurJitter', sigma=(0.1, 2.0), prob=0.5),
        dict(
            type='medssl_mm.TorchvisionSteps',
            steps=[
                dict(type='RandomRotation', degrees=30),
                dict(type='RandomHorizontalFlip'),
            ],
        ),
    ],
)
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        subset='train',
        pipeline=[views, dict(type='medssl_mm.PackViews')],
    ),
)
auto_scale_lr = dict(base_batch_size=8)
