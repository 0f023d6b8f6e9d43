# Chest X-rays of children, pneumonia or not, 28 px shown at 64 px.
_base_ = ['xray_64.py', '../../../data/pneumoniamnist.py']
test_pipeline = [
    _base_.normalize,
    dict(type='medssl_mm.ResizeAndPad', size=64),
    dict(type='medssl_mm.PackImage'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
