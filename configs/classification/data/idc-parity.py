# Breast histopathology as fine-tuned in the published code of "Intermediate
# Layers Matter", with one augmentation at every label fraction.
_base_ = 'idc.py'
images = dict(split='idc-lists')
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        pipeline=[
            dict(
                type='medssl_mm.TorchvisionSteps',
                steps=[
                    dict(type='Resize', size=256),
                    dict(type='CenterCrop', size=255),
                    dict(type='RandomResizedCrop', size=255, scale=(0.2, 1.0)),
                    dict(
                        type='RandomApply',
                        p=0.8,
                        transforms=[
                            dict(
                                type='ColorJitter',
                                brightness=0.4,
                                contrast=0.4,
                                saturation=0.4,
                                hue=0.1,
                            )
                        ],
                    ),
                    dict(type='RandomGrayscale', p=0.2),
                    # A flip and a blur may change places.
                    dict(type='RandomHorizontalFlip'),
                ],
            ),
            dict(type='medssl_mm.BlurJitter', sigma=(0.1, 2.0), prob=0.5),
            dict(type='medssl_mm.PackImage'),
        ],
    ),
)
