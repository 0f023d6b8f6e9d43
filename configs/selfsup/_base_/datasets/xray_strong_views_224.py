# Two views of 224 px of chest X-rays, augmented as strongly as by InnerEye; turns,
# shears and mirror images of the whole circle included.
_base_ = 'images_two_views.py'
views = dict(
    type='medssl_mm.ImageViews',
    transforms=[
        dict(
            type='medssl_mm.TorchvisionSteps',
            steps=[
                dict(type='RandomAffine', degrees=180, shear=40),
                dict(type='RandomResizedCrop', size=256, scale=(0.4, 1.0)),
                dict(type='RandomHorizontalFlip'),
            ],
        ),
        dict(type='medssl_mm.GammaJitter', gamma=(0.5, 1.5), prob=1.0, uniform=True),
        dict(
            type='medssl_mm.TorchvisionSteps',
            steps=[dict(type='ColorJitter', brightness=0.2, contrast=0.2)],
        ),
        dict(type='medssl_mm.ElasticDeformation', alpha=34, sigma=4, prob=0.4),
        dict(
            type='medssl_mm.TorchvisionSteps',
            steps=[
                dict(type='CenterCrop', size=224),
                dict(type='RandomErasing', scale=(0.15, 0.4), ratio=(0.33, 3)),
            ],
        ),
        dict(type='medssl_mm.RangeNoise', std=0.05, prob=0.5),
    ],
)
train_dataloader = dict(
    batch_size=75,
    dataset=dict(pipeline=[views, dict(type='medssl_mm.PackViews')]),
)
