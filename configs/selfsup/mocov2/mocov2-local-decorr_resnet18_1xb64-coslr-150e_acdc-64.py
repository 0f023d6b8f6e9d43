# MoCo v2 + local contrast + decorrelated last map, on ACDC (acdc-20).
_base_ = 'mocov2-local_resnet18_1xb64-coslr-150e_acdc-64.py'
model = dict(
    decorrelation=dict(
        type='medssl_mm.DecorrelationHead',
        num_channels=512,
        # 32 channels each: many more positions in a batch than channels.
        num_groups=16,
        eps=1e-2))
