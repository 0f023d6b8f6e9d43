# NIH ChestX-ray14, fourteen findings, 512 px, split of the official lists.
_base_ = 'images.py'
images = dict(
    type='medssl_mm.NIHChestXray14',
    data_root='data/nih-cxr14',
    split='nih-cxr14-official',
)
test_pipeline = [_base_.normalize, dict(type='medssl_mm.PackImage')]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            _base_.normalize,
            dict(
                type='medssl_mm.RandomSliceCrop',
                size=512,
                scale=(0.6, 1.0),
                # The heart lies on one side.
                flip_prob=0.0,
                rotation=15,
            ),
            dict(type='medssl_mm.IntensityJitter', brightness=0.1, contrast=0.25),
            dict(type='medssl_mm.PackImage'),
        ],
        **images,
    )
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **images))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **images))
