# CT phantom: slices of the 16 patients that are neither val nor test.
_base_ = ['small_two_views.py', '../../../_base_/intensity/ct_window.py']
train_dataloader = dict(
    dataset=dict(
        type='medssl_mm.PhantomSlices',
        data_root='data/phantom',
        split='phantom-24',
        pipeline=[
            dict(type='medssl_mm.LoadSlice'),
            _base_.normalize,
            _base_.views,
            dict(type='medssl_mm.PackViews'),
        ],
    )
)
