# MoCo, the baseline, on PneumoniaMNIST.
_base_ = [
    '../_base_/models/mocov2_bn_resnet18.py',
    '../_base_/datasets/pneumoniamnist_two_views.py',
    '../_base_/schedules/sgd_coslr-150e_small.py',
    '../default_runtime.py',
]
train_cfg = dict(max_epochs=15)
