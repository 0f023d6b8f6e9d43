# Chest X-rays of children, 28 px shown at 64 px, for small networks.
_base_ = 'nih1000_two_views.py'
train_dataloader = dict(
    dataset=dict(
        type='medssl_mm.ClassificationImages',
        data_root='data/pneumoniamnist',
        split='pneumoniamnist-subsets',
    )
)
