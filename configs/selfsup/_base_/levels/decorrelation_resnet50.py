# As decorrelation_resnet18.py, for a ResNet-50.
decorrelation = dict(
    type='medssl_mm.DecorrelationHead',
    num_groups=32,
    # What 'zca' gives, without the eigen-decomposition, slow on GPUs.
    method='newton_schulz',
    eps=1e-2,
)
