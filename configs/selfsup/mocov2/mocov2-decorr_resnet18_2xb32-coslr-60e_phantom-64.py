# MoCo v2 with a decorrelated last map, on the CT phantom.
_base_ = [
    'mocov2_resnet18_2xb32-coslr-60e_phantom-64.py',
    '../_base_/levels/decorrelation_resnet18.py',
]
model = dict(decorrelation=_base_.decorrelation)
