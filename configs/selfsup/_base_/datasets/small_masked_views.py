# One crop of 64 px of slices, noisy and with hidden patches, and the same without
# noise, for small networks on a CPU.
_base_ = 'small_two_views.py'
views = dict(
    type='medssl_mm.CropViews',
    crop=_base_.views.crop,
    shared_crop=True,
    # The first view is seen, the second one restored.
    transforms=[[dict(type='medssl_mm.NoiseJitter', std=(0.0, 0.05), prob=0.5)], []],
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='medssl_mm.LoadSlice'),
            _base_.normalize,
            views,
            dict(type='medssl_mm.HidePatches', patch_size=16),
            dict(type='medssl_mm.PackViews'),
        ],
    ),
)
