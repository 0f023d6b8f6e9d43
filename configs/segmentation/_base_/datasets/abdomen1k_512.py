# AbdomenCT-1K, 4 organs; the split is made by
# tools/prepare_data.py abdomen1k ... --holdout 0.2 --val 0.1
_base_ = ['slices_512.py', '../../../_base_/intensity/ct_window.py']
slices = dict(
    type='medssl_mm.Abdomen1KSlices',
    data_root='data/abdomen1k',
    split='holdout-20-val-10-seed0')
test_pipeline = [
    dict(type='medssl_mm.LoadSlice'),
    _base_.normalize,
    _base_.resize,
    # After the resize: the label keeps the original grid.
    dict(type='medssl_mm.LoadSliceLabel'),
    dict(type='medssl_mm.PackSlice'),
]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='medssl_mm.LoadSlice'),
            dict(type='medssl_mm.LoadSliceLabel'),
            _base_.normalize,
            *_base_.augment,
            dict(type='medssl_mm.PackSlice'),
        ],
        **slices))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **slices))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **slices))
