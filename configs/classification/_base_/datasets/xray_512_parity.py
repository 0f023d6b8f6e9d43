# NIH ChestX-ray14 as fine-tuned in the published code of "Intermediate Layers
# Matter": its lists, its augmentation.
_base_ = 'xray_512.py'
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        pipeline=[
            dict(
                type='medssl_mm.TorchvisionSteps',
                steps=[
                    dict(
                        type='RandomApply',
                        p=0.8,
                        transforms=[
                            dict(type='ColorJitter', brightness=0.4, contrast=0.4)
                        ],
                    ),
                ],
            ),
            dict(type='medssl_mm.BlurJitter', sigma=(0.1, 2.0), prob=0.5),
            dict(
                type='medssl_mm.TorchvisionSteps',
                steps=[dict(type='RandomRotation', degrees=30)],
            ),
            dict(type='medssl_mm.PackImage'),
        ],
    ),
)
