# Steps of a classifier of chest X-rays of 256 px shown at 224 px, from an image to one
# that is to be packed: whole ones, and augmented as by InnerEye's linear head.
whole_steps = [
    dict(
        type='medssl_mm.TorchvisionSteps',
        steps=[dict(type='Resize', size=256), dict(type='CenterCrop', size=224)],
    ),
]
learning_steps = [
    dict(
        type='medssl_mm.TorchvisionSteps',
        steps=[
            dict(type='RandomAffine', degrees=30, shear=15),
            dict(type='RandomResizedCrop', size=256, scale=(0.8, 1.0)),
            dict(type='RandomHorizontalFlip'),
        ],
    ),
    dict(type='medssl_mm.GammaJitter', gamma=(0.5, 1.5), prob=1.0, uniform=True),
    dict(
        type='medssl_mm.TorchvisionSteps',
        steps=[
            dict(type='ColorJitter', brightness=0.2, contrast=0.2),
            dict(type='CenterCrop', size=224),
        ],
    ),
]
