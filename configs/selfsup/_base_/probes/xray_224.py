# Probes at 224 px by the labels of chest X-rays, see images_64.py. The online probe
# learns from images augmented as by InnerEye's linear head, each class weighted by
# its frequency; validation is on whole images.
_base_ = 'images_64.py'
whole = [
    dict(
        type='medssl_mm.TorchvisionSteps',
        steps=[dict(type='Resize', size=256), dict(type='CenterCrop', size=224)],
    ),
    dict(type='medssl_mm.PackViews'),
]
augmented = [
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
    dict(type='medssl_mm.PackViews'),
]
default_hooks = dict(
    online_probe=dict(
        class_weights='balanced',
        train_dataset=dict(pipeline=augmented),
        val_dataset=dict(pipeline=whole),
    ),
    knn_probe=dict(
        train_dataset=dict(pipeline=whole), val_dataset=dict(pipeline=whole)
    ),
)
del whole, augmented
