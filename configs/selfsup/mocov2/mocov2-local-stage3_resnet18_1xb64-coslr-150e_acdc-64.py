# MoCo v2 + contrast of local regions on stage 3 alone, on ACDC (acdc-20): the last
# stage keeps its stride, so a step costs little more than one of MoCo v2.
_base_ = [
    'mocov2_resnet18_1xb64-coslr-150e_acdc-64.py',
    '../_base_/levels/local_contrast.py',
]
model = dict(multi_level_head=dict(levels=[_base_.local_levels[0]]))
