# Two views of 64 px of slices, for small networks on a CPU.
normalize = dict(type='medssl_mm.NormalizeByStore')
view_transforms = [
    dict(type='medssl_mm.IntensityJitter', brightness=0.1, contrast=0.4),
    dict(type='medssl_mm.GammaJitter', prob=0.5),
    # In pixels of the view: a small one holds less detail to blur.
    dict(type='medssl_mm.BlurJitter', sigma=(0.1, 1.0), prob=0.5),
    dict(type='medssl_mm.NoiseJitter', std=(0.0, 0.05), prob=0.5),
]
views = dict(
    type='medssl_mm.CropViews',
    crop=dict(
        type='medssl_mm.RandomCropView',
        size=64,
        scale=(0.2, 1.0),
        # Share of mirrored views. None: the liver is on one side, and features
        # that cannot tell left from right are no help in telling organs. Up to
        # 0.1 it was 0.5, as of photographs; for checkpoints of before:
        # --cfg-options train_dataloader.dataset.pipeline.2.crop.flip_prob=0.5
        flip_prob=0.0,
    ),
    transforms=view_transforms,
)
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='medssl_mm.ResumableSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='medssl_mm.SliceDataset',
        subset='pretrain',
        pipeline=[
            dict(type='medssl_mm.LoadSlice'),
            normalize,
            views,
            dict(type='medssl_mm.PackViews'),
        ],
    ),
)
