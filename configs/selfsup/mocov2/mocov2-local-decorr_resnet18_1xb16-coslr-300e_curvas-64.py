# MoCo v2 + local contrast + decorrelated last map, on CURVAS (curvas-14).
_base_ = 'mocov2-local_resnet18_1xb16-coslr-300e_curvas-64.py'
model = dict(
    decorrelation=dict(
        type='medssl_mm.DecorrelationHead',
        num_channels=512,
        # 32 channels each: many more positions in a batch than channels.
        num_groups=16,
        eps=1e-2))
