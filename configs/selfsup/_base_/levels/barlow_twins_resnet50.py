# Barlow Twins on all residual stages of ResNet-50: 256 to 2048 channels.
barlow_twins_levels = [
    dict(
        stage=stage,
        neck=dict(type='medssl_mm.BarlowTwinsNeck', in_channels=128 * 2**stage),
        key_neck='shared',
        loss=dict(type='medssl_mm.BarlowTwinsLoss'),
        # The term is a sum over 2048 channels, some hundreds: so weighted,
        # its gradient is as large as that of an MSE term of weight 0.25.
        weight=6e-4,
    )
    for stage in range(1, 5)
]
