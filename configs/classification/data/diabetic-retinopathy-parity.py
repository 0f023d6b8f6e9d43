# EyePACS as fine-tuned in the published code of "Intermediate Layers Matter";
# the split stays by patient.
_base_ = 'diabetic-retinopathy.py'
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
                        transforms=[dict(type='ColorJitter', contrast=0.4, hue=0.1)],
                    ),
                    dict(type='RandomHorizontalFlip'),
                    dict(type='RandomVerticalFlip'),
                ],
            ),
            dict(type='medssl_mm.PackImage'),
        ]
    ),
)
