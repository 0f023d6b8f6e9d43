# Two views of 128 px, the size of fine-tuning, for what its decoder learns: batches are
# half as large, as an image costs four times as much.
_base_ = 'small_two_views.py'
steps = _base_.train_dataloader.dataset.pipeline
views = dict(_base_.views, crop=dict(_base_.views.crop, size=128))
train_dataloader = dict(
    batch_size=32, dataset=dict(pipeline=[*steps[:2], views, *steps[3:]])
)
