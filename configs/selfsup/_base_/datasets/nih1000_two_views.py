# 1000 chest X-rays of NIH ChestX-ray14 at 64 px, for small networks.
_base_ = ['small_two_views.py', '../../../_base_/intensity/grey_8bit.py']
views = dict(
    type='medssl_mm.SliceViews',
    crop=dict(
        type='medssl_mm.RandomSliceCrop',
        size=64,
        scale=(0.2, 1.0),
        # The heart lies on one side.
        flip_prob=0.0,
    ),
    transforms=_base_.view_transforms,
)
train_dataloader = dict(
    dataset=dict(
        type='medssl_mm.NIHChestXray14',
        data_root='data/nih1000',
        split='nih1000-patients',
        pipeline=[
            _base_.normalize,
            views,
            dict(type='medssl_mm.PackViews'),
        ],
    )
)
