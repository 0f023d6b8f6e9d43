# MoCo + MSE of the mean features, as in the published code, on breast
# histopathology (IDC).
_base_ = 'moco-parity_resnet50_1xb32-const-1000e_idc-255.py'
model = dict(
    backbone=dict(zero_init_residual=True),
    multi_level_head=dict(
        levels=[
            dict(
                stage=stage,
                # Not the grids of the other data sets.
                loss=dict(type='medssl_mm.FeatureMSELoss', grid=1),
                weight=0.25,
            )
            for stage in range(1, 5)
        ]
    ),
)
