# CIFAR-10 with the validation of InnerEye's linear head: random crops and flips,
# as in training.
_base_ = '../../data/cifar10.py'
cropped = [
    dict(
        type='medssl_mm.TorchvisionSteps',
        steps=[
            dict(type='RandomResizedCrop', size=32),
            dict(type='RandomHorizontalFlip'),
        ],
    ),
    dict(type='medssl_mm.PackImage'),
]
val_dataloader = dict(dataset=dict(pipeline=cropped))
