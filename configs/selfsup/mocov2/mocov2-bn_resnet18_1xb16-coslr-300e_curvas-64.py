# MoCo v2 with a batch-normalised projector, on CURVAS, protocol curvas-14.
_base_ = 'mocov2_resnet18_1xb16-coslr-300e_curvas-64.py'
model = dict(
    neck=dict(
        _delete_=True,
        type='NonLinearNeck',
        in_channels=512,
        hid_channels=512,
        out_channels=128,
        norm_cfg=dict(type='BN1d'),
    )
)
