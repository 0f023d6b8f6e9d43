# Labelled slices at 128 px for ResNet-18 on a CPU. Data sets inherit it with
# an intensity base beside it.
_base_ = 'slices_512.py'
augment = [
    dict(type='medssl_mm.RandomSliceAffine', size=128),
    dict(type='medssl_mm.IntensityJitter', brightness=0.1, contrast=0.25),
    dict(type='medssl_mm.GammaJitter', prob=0.3),
]
resize = dict(type='medssl_mm.ResizeSlice', size=128)
# For training without augmentation: the view of evaluation, with its label.
resize_both = dict(type='medssl_mm.ResizeSlice', size=128, resize_labels=True)
train_dataloader = dict(batch_size=16, num_workers=1)
val_dataloader = dict(batch_size=16, num_workers=1)
test_dataloader = dict(batch_size=16, num_workers=1)
