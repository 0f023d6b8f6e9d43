# Probes at 32 px by the labels of CIFAR images, see images_64.py. The online probe
# learns from crops and mirror images, as InnerEye's; validation is on whole images.
_base_ = 'images_64.py'
whole = [dict(type='medssl_mm.TorchvisionSteps'), dict(type='medssl_mm.PackViews')]
cropped = [
    dict(
        type='medssl_mm.TorchvisionSteps',
        steps=[
            dict(type='RandomResizedCrop', size=32),
            dict(type='RandomHorizontalFlip'),
        ],
    ),
    dict(type='medssl_mm.PackViews'),
]
default_hooks = dict(
    online_probe=dict(
        train_dataset=dict(pipeline=cropped), val_dataset=dict(pipeline=whole)
    ),
    knn_probe=dict(
        train_dataset=dict(pipeline=whole), val_dataset=dict(pipeline=whole)
    ),
)
del whole, cropped
