# ACDC, 20 training, 10 validation, 20 test patients; 3 structures.
_base_ = ['slices_128.py', '../../../_base_/intensity/mr_percentiles.py']
slices = dict(type='medssl_mm.ACDCSlices', data_root='data/acdc', split='acdc-20')
test_pipeline = [
    dict(type='medssl_mm.LoadSlice'),
    _base_.normalize,
    _base_.resize,
    # After the resize: the label keeps the original grid.
    dict(type='medssl_mm.LoadSliceLabel'),
    dict(type='medssl_mm.PackSlice'),
]
# No random step, so that features of a frozen network can be kept.
fixed_pipeline = [
    dict(type='medssl_mm.LoadSlice'),
    dict(type='medssl_mm.LoadSliceLabel'),
    _base_.normalize,
    _base_.resize_both,
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
        **slices,
    )
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **slices))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **slices))
