# Masked views as in small_masked_views.py, of 128 px, in batches half as large.
_base_ = 'small_masked_views.py'
steps = _base_.train_dataloader.dataset.pipeline
views = dict(_base_.views, crop=dict(_base_.views.crop, size=128))
train_dataloader = dict(
    batch_size=32, dataset=dict(pipeline=[*steps[:2], views, *steps[3:]])
)
