# Linear head on a frozen ResNet-50, which stays in evaluation mode: neither
# its weights nor its batch statistics change.
_base_ = 'resnet50.py'
model = dict(
    type='medssl_mm.FrozenImageClassifier',
    # Random features need their residual branches.
    backbone=dict(zero_init_residual=False),
)
custom_hooks = [dict(type='medssl_mm.CalibrateRandomBackboneHook')]
