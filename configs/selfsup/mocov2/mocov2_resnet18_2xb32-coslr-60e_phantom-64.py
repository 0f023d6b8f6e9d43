# MoCo v2 on the CT phantom: the pretraining of tools/demo.sh.
_base_ = [
    '../_base_/models/mocov2_resnet18.py',
    '../_base_/datasets/phantom_two_views.py',
    '../_base_/schedules/sgd_coslr-150e_small.py',
    '../default_runtime.py',
]
train_cfg = dict(max_epochs=60)
train_dataloader = dict(batch_size=32)
