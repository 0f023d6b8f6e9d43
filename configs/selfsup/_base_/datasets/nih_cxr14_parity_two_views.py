# NIH ChestX-ray14 augmented as in the published code of "Intermediate Layers
# Matter": no crop, no flip, its own train list. Saturation, hue and greying
# of its list change nothing on a grey image and are left out.
_base_ = ['images_two_views.py', '../../../data/nih_cxr14.py']
images = dict(split='nih-cxr14-lists')
views = dict(
    type='medssl_mm.ImageViews',
    transforms=[
        dict(
            type='medssl_mm.TorchvisionSteps',
            steps=[
                dict(
                    type='RandomApply',
                    p=0.8,
                    transforms=[dict(type='ColorJitter', brightness=0.4, contrast=0.4)],
                ),
            ],
        ),
        dict(type='medssl_mm.BlurJitter', sigma=(0.1, 2.0), prob=0.5),
        dict(
            type='medssl_mm.TorchvisionSteps',
            steps=[dict(type='RandomRotation', degrees=30)],
        ),
    ],
)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        subset='train',
        pipeline=[views, dict(type='medssl_mm.PackViews')],
    ),
)
