# MoCo v2 with a decorrelated last map, on the CT phantom.
_base_ = 'mocov2_resnet18_2xb32-coslr-60e_phantom-64.py'
model = dict(
    decorrelation=dict(
        type='medssl_mm.DecorrelationHead',
        num_channels=512,
        # 32 channels each: many more positions in a batch than channels.
        num_groups=16,
        eps=1e-2))
