# CT phantom, 6 labelled training, 2 validation, 6 test patients.
_base_ = ['slices_128.py', '../../../_base_/intensity/ct_window.py']
slices = dict(
    type='medssl_mm.PhantomSlices', data_root='data/phantom', split='phantom-24'
)
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
