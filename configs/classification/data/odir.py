# Eye photographs of ODIR, 64 px: normal, cataract or glaucoma.
_base_ = ['../_base_/datasets/eyes.py', '../../data/odir.py']
test_pipeline = [
    _base_.normalize,
    dict(type='medssl_mm.ResizeAndPad', size=64),
    dict(type='medssl_mm.PackImage'),
]
train_dataloader = dict(
    num_workers=1,
    dataset=dict(
        pipeline=[
            _base_.normalize,
            dict(
                type='medssl_mm.RandomCropView', size=64, scale=(0.6, 1.0), rotation=180
            ),
            _base_.eye_colour,
            dict(type='medssl_mm.PackImage'),
        ],
    ),
)
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
