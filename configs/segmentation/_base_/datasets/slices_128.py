# Labelled slices at 128 px for ResNet-18 on a CPU.
_base_ = 'slices_512.py'
augment = [
    dict(type='medssl_mm.RandomAffineView', size=128),
    dict(type='medssl_mm.IntensityJitter', brightness=0.1, contrast=0.25),
    dict(type='medssl_mm.GammaJitter', prob=0.3),
]
resize = dict(type='medssl_mm.ResizeAndPad', size=128)
test_pipeline = [
    dict(type='medssl_mm.LoadSlice'),
    _base_.normalize,
    resize,
    # After the resize: the label keeps the original grid.
    dict(type='medssl_mm.LoadSliceLabel'),
    dict(type='medssl_mm.PackSlice'),
]
# For training without augmentation: the view of evaluation, with its label.
resize_both = dict(type='medssl_mm.ResizeAndPad', size=128, resize_labels=True)
# No random step, so that features of a frozen network can be kept.
fixed_pipeline = [
    dict(type='medssl_mm.LoadSlice'),
    dict(type='medssl_mm.LoadSliceLabel'),
    _base_.normalize,
    resize_both,
    dict(type='medssl_mm.PackSlice'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    dataset=dict(
        pipeline=[
            dict(type='medssl_mm.LoadSlice'),
            dict(type='medssl_mm.LoadSliceLabel'),
            _base_.normalize,
            *augment,
            dict(type='medssl_mm.PackSlice'),
        ]
    ),
)
val_dataloader = dict(
    batch_size=16, num_workers=1, dataset=dict(pipeline=test_pipeline)
)
test_dataloader = dict(
    batch_size=16, num_workers=1, dataset=dict(pipeline=test_pipeline)
)
