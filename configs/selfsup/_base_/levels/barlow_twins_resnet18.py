# Barlow Twins on all residual stages of ResNet-18, with
# a narrow projector for small data sets.
barlow_twins_levels = [
    dict(
        stage=stage,
        neck=dict(
            type='medssl_mm.BarlowTwinsNeck',
            hid_channels=512,
            out_channels=512,
        ),
        key_neck='shared',
        loss=dict(type='medssl_mm.BarlowTwinsLoss'),
        # As for ResNet-50, with a sum over 512 channels.
        weight=2.5e-3,
    )
    for stage in range(1, 5)
]
