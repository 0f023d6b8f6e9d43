# Barlow Twins on all residual stages of ResNet-50.
barlow_twins_levels = [
    dict(
        stage=stage,
        neck=dict(type='medssl_mm.BarlowTwinsNeck'),
        key_neck='shared',
        loss=dict(type='medssl_mm.BarlowTwinsLoss'),
        # The term is a sum over 2048 channels, some hundreds: so weighted,
        # its gradient is as large as that of an MSE term of weight 0.25.
        weight=6e-4,
    )
    for stage in range(1, 5)
]
