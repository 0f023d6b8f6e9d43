# As feature_mse.py, on standardised channels.
feature_mse_levels = [
    dict(
        stage=stage,
        loss=dict(type='medssl_mm.FeatureMSELoss', standardize=True),
        weight=0.25) for stage in range(1, 5)
]
