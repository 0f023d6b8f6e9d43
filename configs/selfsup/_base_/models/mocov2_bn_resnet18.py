# MoCo v2 with a batch-normalised projector, ResNet-18. The plain projector of
# MoCo v2 collapses on a few hundred slices: queries learn to tell new keys
# from old ones by the drift of the key encoder, not images, and all
# embeddings end up parallel.
_base_ = 'mocov2_resnet18.py'
model = dict(
    neck=dict(
        _delete_=True,
        type='NonLinearNeck',
        hid_channels=512,
        out_channels=128,
        norm_cfg=dict(type='BN1d'),
    )
)
