# Labelled CT slices at 512 px, as slices_512.py. Data sets in Hounsfield units
# inherit it and name themselves.
_base_ = ['slices_512.py', '../../../_base_/intensity/ct_window.py']
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
        ]
    )
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
