# Labelled slices at 512 px for ResNet-50.
normalize = dict(type='medssl_mm.NormalizeByStore')
augment = [
    # Around the view of evaluation. No flip: it would turn left into right
    # organs.
    dict(type='medssl_mm.RandomAffineView', size=512),
    dict(type='medssl_mm.IntensityJitter', brightness=0.1, contrast=0.25),
    dict(type='medssl_mm.GammaJitter', prob=0.3),
]
test_pipeline = [
    dict(type='medssl_mm.LoadSlice'),
    normalize,
    dict(type='medssl_mm.ResizeAndPad', size=512),
    # After the resize: the label keeps the original grid.
    dict(type='medssl_mm.LoadSliceLabel'),
    dict(type='medssl_mm.PackSlice'),
]
# Not rounded up: no process repeats a slice to have as many as the others.
each_slice_once = dict(type='DefaultSampler', shuffle=False, round_up=False)
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='medssl_mm.ResumableSampler', infinite=True),
    dataset=dict(
        type='medssl_mm.SliceDataset',
        subset='train',
        labelled=True,
        pipeline=[
            dict(type='medssl_mm.LoadSlice'),
            dict(type='medssl_mm.LoadSliceLabel'),
            normalize,
            *augment,
            dict(type='medssl_mm.PackSlice'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=each_slice_once,
    dataset=dict(
        type='medssl_mm.SliceDataset',
        subset='val',
        labelled=True,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    val_dataloader, dataset=dict(val_dataloader['dataset'], subset='test')
)
