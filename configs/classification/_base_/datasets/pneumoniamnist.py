# Chest X-rays of children, pneumonia or not, 28 px shown at 64 px.
_base_ = 'nih1000.py'
images = dict(
    type='medssl_mm.ClassificationImages',
    data_root='data/pneumoniamnist',
    split='pneumoniamnist-subsets',
)
test_pipeline = [
    {{_base_.normalize}},
    dict(type='medssl_mm.ResizeSlice', size=64),
    dict(type='medssl_mm.PackImage'),
]
train_dataloader = dict(dataset=images)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **images))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **images))
