# MoCo + Barlow Twins as in the published code, on NIH ChestX-ray14: diagonal
# and off-diagonal entries are weighted alike.
_base_ = 'moco-parity_resnet50_1xb16-const-1000e_nih-cxr14-512.py'
model = dict(
    backbone=dict(zero_init_residual=True),
    multi_level_head=dict(
        levels=[
            dict(
                stage=stage,
                neck=dict(type='medssl_mm.BarlowTwinsNeck'),
                key_neck='shared',
                loss=dict(type='medssl_mm.BarlowTwinsLoss', off_diagonal_weight=1.0),
                weight=5e-5 / 32,
            )
            for stage in range(1, 5)
        ]
    ),
)
