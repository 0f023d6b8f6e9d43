# MoCo v2 with a decorrelated last map, on ACDC (acdc-20).
_base_ = [
    'mocov2_resnet18_1xb64-coslr-150e_acdc-64.py',
    '../_base_/levels/decorrelation_resnet18.py',
]
model = dict(decorrelation=_base_.decorrelation)
