# AbdomenCT-1K, 4 organs; the split is made by
# tools/prepare_data.py abdomen1k ... --holdout 0.2 --val 0.1
_base_ = 'ct_slices_512.py'
slices = dict(
    type='medssl_mm.Abdomen1KSlices',
    data_root='data/abdomen1k',
    split='holdout-20-val-10-seed0',
)
train_dataloader = dict(dataset=slices)
val_dataloader = dict(dataset=slices)
test_dataloader = dict(dataset=slices)
