# CIFAR images of 32 px; validation and test see them whole.
_base_ = 'images.py'
test_pipeline = [
    dict(type='medssl_mm.TorchvisionSteps'),
    dict(type='medssl_mm.PackImage'),
]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(
                type='medssl_mm.TorchvisionSteps',
                steps=[
                    dict(type='RandomResizedCrop', size=32),
                    dict(type='RandomHorizontalFlip'),
                ],
            ),
            dict(type='medssl_mm.PackImage'),
        ],
    ),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
