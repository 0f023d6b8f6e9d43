# Chest X-rays at 512 px.
_base_ = 'images.py'
test_pipeline = [_base_.normalize, dict(type='medssl_mm.PackImage')]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            _base_.normalize,
            dict(
                type='medssl_mm.RandomCropView',
                size=512,
                scale=(0.6, 1.0),
                # The heart lies on one side.
                flip_prob=0.0,
                rotation=15,
            ),
            dict(type='medssl_mm.IntensityJitter', brightness=0.1, contrast=0.25),
            dict(type='medssl_mm.PackImage'),
        ],
    )
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
