# MoCo as in the published code, on NIH ChestX-ray14: a projector of one linear
# layer, and a constant learning rate, not scaled with the batch.
_base_ = [
    '../_base_/models/mocov2_resnet50.py',
    '../_base_/datasets/nih_cxr14_parity_two_views.py',
    '../_base_/schedules/sgd_coslr-200e.py',
    '../default_runtime.py',
]
model = dict(
    neck=dict(_delete_=True, type='LinearNeck', out_channels=128),
    head=dict(temperature=0.07),
)
param_scheduler = []
train_cfg = dict(max_epochs=1000)
auto_scale_lr = dict(base_batch_size=16)
