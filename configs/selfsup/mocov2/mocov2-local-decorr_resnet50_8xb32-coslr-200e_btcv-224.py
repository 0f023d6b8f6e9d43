# MoCo v2 + local contrast + decorrelated last map, on BTCV (18 volumes).
_base_ = 'mocov2-local_resnet50_8xb32-coslr-200e_btcv-224.py'
model = dict(
    decorrelation=dict(
        type='medssl_mm.DecorrelationHead',
        num_channels=2048,
        num_groups=32,
        # What 'zca' gives, without the eigen-decomposition, slow on GPUs.
        method='newton_schulz',
        eps=1e-2))
