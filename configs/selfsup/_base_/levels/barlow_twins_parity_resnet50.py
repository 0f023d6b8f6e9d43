# Barlow Twins terms weighted as in the published code: diagonal and
# off-diagonal entries alike.
barlow_twins_levels = [
    dict(
        stage=stage,
        neck=dict(type='medssl_mm.BarlowTwinsNeck', in_channels=128 * 2**stage),
        key_neck='shared',
        loss=dict(type='medssl_mm.BarlowTwinsLoss', off_diagonal_weight=1.0),
        weight=5e-5 / 32,
    )
    for stage in range(1, 5)
]
