# Breast histopathology, carcinoma or not, patches of 50 px shown at 255 px.
_base_ = ['../_base_/datasets/images.py', '../../data/idc.py']
test_pipeline = [
    dict(
        type='medssl_mm.TorchvisionSteps',
        steps=[
            dict(type='Resize', size=256),
            dict(type='CenterCrop', size=255),
        ],
    ),
    dict(type='medssl_mm.PackImage'),
]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(
                type='medssl_mm.TorchvisionSteps',
                steps=[
                    dict(type='RandomResizedCrop', size=255, scale=(0.4, 1.0)),
                    _base_.colour_jitter,
                    dict(type='RandomHorizontalFlip'),
                    dict(type='RandomVerticalFlip'),
                    dict(
                        type='RandomApply',
                        transforms=[dict(type='RandomRotation', degrees=(90, 90))],
                    ),
                ],
            ),
            dict(type='medssl_mm.PackImage'),
        ],
    )
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
# Classes are unequal and F1 is what is reported.
default_hooks = dict(checkpoint=dict(save_best='classification/macro_F1'))
