# EyePACS retina photographs, referable retinopathy or not, 299 px.
_base_ = ['../_base_/datasets/eyes.py', '../../data/diabetic_retinopathy.py']
test_pipeline = [_base_.normalize, dict(type='medssl_mm.PackImage')]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            _base_.normalize,
            dict(
                type='medssl_mm.RandomCropView',
                size=299,
                scale=(0.6, 1.0),
                rotation=180,
            ),
            _base_.eye_colour,
            dict(type='medssl_mm.PackImage'),
        ],
    )
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
