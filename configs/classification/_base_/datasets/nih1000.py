# 1000 chest X-rays of NIH ChestX-ray14 at 64 px, fourteen findings.
_base_ = 'images.py'
images = dict(
    type='medssl_mm.NIHChestXray14', data_root='data/nih1000', split='nih1000-patients'
)
test_pipeline = [_base_.normalize, dict(type='medssl_mm.PackImage')]
train_dataloader = dict(
    num_workers=1,
    dataset=dict(
        pipeline=[
            _base_.normalize,
            dict(
                type='medssl_mm.RandomSliceCrop',
                size=64,
                scale=(0.6, 1.0),
                # The heart lies on one side.
                flip_prob=0.0,
                rotation=15,
            ),
            dict(type='medssl_mm.IntensityJitter', brightness=0.1, contrast=0.25),
            dict(type='medssl_mm.PackImage'),
        ],
        **images,
    ),
)
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline, **images))
test_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline, **images))
