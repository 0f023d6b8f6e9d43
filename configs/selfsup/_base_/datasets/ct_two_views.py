# Two views of 224 px of slices.
normalize = dict(type='medssl_mm.NormalizeByStore')
view_transforms = [
    # Shift and gain act on the windowed slice like another window.
    dict(type='medssl_mm.IntensityJitter', brightness=0.2, contrast=0.4),
    dict(type='medssl_mm.GammaJitter', prob=0.3),
    dict(type='medssl_mm.BlurJitter', sigma=(0.1, 2.0), prob=0.5),
    dict(type='medssl_mm.NoiseJitter', std=(0.0, 0.03), prob=0.2),
]
train_pipeline = [
    dict(type='medssl_mm.LoadSlice'),
    normalize,
    dict(
        type='medssl_mm.CropViews',
        crop=dict(
            type='medssl_mm.RandomCropView',
            size=224,
            scale=(0.2, 1.0),
            # Share of mirrored views. None: the liver is on one side, and features
            # that cannot tell left from right are no help in telling organs. Up to
            # 0.1 it was 0.5, as of photographs; for checkpoints of before:
            # --cfg-options train_dataloader.dataset.pipeline.2.crop.flip_prob=0.5
            flip_prob=0.0,
        ),
        transforms=view_transforms,
    ),
    dict(type='medssl_mm.PackViews'),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='medssl_mm.ResumableSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='medssl_mm.SliceDataset',
        subset='pretrain',
        # Less than 5 % body: table, air and a little skin.
        min_foreground=0.05,
        pipeline=train_pipeline,
    ),
)
