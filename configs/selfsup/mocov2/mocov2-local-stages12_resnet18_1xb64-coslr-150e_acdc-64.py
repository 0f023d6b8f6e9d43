# MoCo v2 + contrast of local regions on the stages 1 and 2, on ACDC (acdc-20).
_base_ = [
    'mocov2_resnet18_1xb64-coslr-150e_acdc-64.py',
    '../_base_/levels/local_contrast.py',
]
model = dict(
    multi_level_head=dict(
        levels=[
            dict(_base_.local_levels[0], stage=1),
            dict(_base_.local_levels[0], stage=2),
        ]
    )
)
