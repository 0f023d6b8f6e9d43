# Put on a pretraining of ResNet-18 (+soft_decorrelation):
# channels of the last map, the one that is kept, shall not covary over all positions.
# The weights: on ACDC, 5 to 45 steps into MoCo v2, the gradient at the backbone was
# 0.1 to 0.6 of the contrastive loss, 180 to 600 of the covariance (a sum over 512
# channels) and 0.4 to 0.5 of the hinge, which has to keep them from shrinking instead.
# VICReg's own weights, 25 and 1 for an embedding, would leave nothing to the contrast.
model = dict(
    multi_level_head=dict(
        levels=[
            dict(
                stage=4,
                loss=dict(
                    type='medssl_mm.VICRegLoss',
                    invariance_weight=0.0,
                    variance_weight=0.5,
                    covariance_weight=1e-3,
                ),
                name='covariance',
            )
        ]
    )
)
