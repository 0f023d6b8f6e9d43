# ACDC: slices of the 20 training and 10 validation patients.
_base_ = ['small_two_views.py', '../../../_base_/intensity/mr_percentiles.py']
train_dataloader = dict(
    dataset=dict(
        type='medssl_mm.ACDCSlices',
        data_root='data/acdc',
        split='acdc-20',
        pipeline=[
            dict(type='medssl_mm.LoadSlice'),
            _base_.normalize,
            _base_.views,
            dict(type='medssl_mm.PackViews'),
        ],
    )
)
