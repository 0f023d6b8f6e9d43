# Labelled slices at 128 px for ResNet-18 on a CPU. Data sets inherit it with
# an intensity base beside it.
_base_ = 'slices_512.py'
augment = [
    dict(
        type='medssl_mm.RandomSliceCrop',
        size=128,
        scale=(0.5, 1.0),
        flip_prob=0.0,
        rotation=15),
    dict(type='medssl_mm.IntensityJitter', brightness=0.1, contrast=0.25),
    dict(type='medssl_mm.GammaJitter', prob=0.3),
]
resize = dict(type='medssl_mm.ResizeSlice', size=128)
train_dataloader = dict(batch_size=16, num_workers=1)
val_dataloader = dict(batch_size=16, num_workers=1)
test_dataloader = dict(batch_size=16, num_workers=1)
