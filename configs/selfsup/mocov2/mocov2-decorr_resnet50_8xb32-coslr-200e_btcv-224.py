# MoCo v2 with a decorrelated last map, on BTCV (18 volumes).
_base_ = [
    'mocov2_resnet50_8xb32-coslr-200e_btcv-224.py',
    '../_base_/levels/decorrelation_resnet50.py',
]
model = dict(decorrelation=_base_.decorrelation)
