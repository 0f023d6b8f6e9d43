# MoCo v2 with a decorrelated last map, on CURVAS (curvas-14).
_base_ = [
    'mocov2_resnet18_1xb16-coslr-300e_curvas-64.py',
    '../_base_/levels/decorrelation_resnet18.py',
]
model = dict(decorrelation=_base_.decorrelation)
