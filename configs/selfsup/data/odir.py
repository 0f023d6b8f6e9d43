# Eye photographs of ODIR, 64 px: turned and mirrored as those of EyePACS, but not
# blurred, as a cataract is told by its blur.
_base_ = ['../_base_/datasets/eyes_two_views.py', '../../data/odir.py']
views = dict(
    type='medssl_mm.CropViews',
    crop=dict(
        type='medssl_mm.RandomCropView', size=64, scale=(0.4, 1.0), rotation=180
    ),
    transforms=[_base_.eye_colour],
)
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(
        pipeline=[_base_.normalize, views, dict(type='medssl_mm.PackViews')],
    ),
)
train_cfg = dict(max_epochs=60)
