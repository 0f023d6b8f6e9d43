# Terms on the maps of all residual stages, averaged over a grid of cells:
# 16 per side for the stages 1 and 2, 4 for the stages 3 and 4. Any ResNet.
feature_mse_levels = [
    dict(stage=stage, loss=dict(type='medssl_mm.FeatureMSELoss'), weight=0.25)
    for stage in range(1, 5)
]
