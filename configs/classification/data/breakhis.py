# Breast histopathology of BreakHis, benign or malignant, 224 px.
_base_ = ['../_base_/datasets/images.py', '../../data/breakhis.py']
test_pipeline = [_base_.normalize, dict(type='medssl_mm.PackImage')]
train_dataloader = dict(
    num_workers=1,
    dataset=dict(
        pipeline=[
            dict(
                type='medssl_mm.TorchvisionSteps',
                steps=[
                    dict(type='RandomResizedCrop', size=224, scale=(0.4, 1.0)),
                    _base_.colour_jitter,
                    dict(type='RandomHorizontalFlip'),
                    dict(type='RandomVerticalFlip'),
                ],
            ),
            dict(type='medssl_mm.PackImage'),
        ],
    ),
)
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
