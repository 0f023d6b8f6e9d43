# CURVAS: slices of the patients that are not for test.
_base_ = ['small_two_views.py', '../../../_base_/intensity/grey_8bit.py']
train_dataloader = dict(
    dataset=dict(
        type='medssl_mm.CurvasSlices',
        data_root='data/curvas',
        split='curvas-14',
        pipeline=[
            dict(type='medssl_mm.LoadSlice'),
            _base_.normalize,
            _base_.views,
            dict(type='medssl_mm.PackViews'),
        ],
    )
)
