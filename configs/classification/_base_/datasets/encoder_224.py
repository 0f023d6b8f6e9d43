# Pictures for a pretrained encoder of 224 px, in 0-1; transfer tables put the
# sizes of other encoders in.
_base_ = 'images.py'
whole_steps = [
    dict(type='Resize', size=[224], interpolation='bicubic'),
    dict(type='CenterCrop', size=224),
]
test_pipeline = [
    dict(type='medssl_mm.TorchvisionSteps', steps=whole_steps),
    dict(type='medssl_mm.PackImage'),
]
train_dataloader = dict(
    batch_size=64,
    dataset=dict(
        pipeline=[
            dict(
                type='medssl_mm.TorchvisionSteps',
                steps=[
                    dict(type='RandomResizedCrop', size=224, interpolation='bicubic'),
                    dict(type='RandomHorizontalFlip'),
                ],
            ),
            dict(type='medssl_mm.PackImage'),
        ],
    ),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
