# MoCo v2 on CURVAS, protocol curvas-14, on one process.
_base_ = [
    '../_base_/models/mocov2_resnet18.py',
    '../_base_/datasets/curvas_two_views.py',
    '../_base_/schedules/sgd_coslr-150e_small.py',
    '../default_runtime.py',
]
# Fewer than 100 slices: small batches, and a queue below their number.
model = dict(queue_len=64)
optim_wrapper = dict(optimizer=dict(lr=0.015))
train_cfg = dict(max_epochs=300)
train_dataloader = dict(batch_size=16)
auto_scale_lr = dict(base_batch_size=16)
