# MoCo v2 with ResNet-18 for small grey images and small data sets.
_base_ = 'mocov2_resnet50.py'
model = dict(
    # Under half the data set, so that a slice's own key of the last epoch is
    # seldom among the negatives; and the key encoder may follow faster.
    queue_len=256,
    ema_decay=0.99,
    backbone=dict(depth=18),
    # Normalised projector. With MoCo v2's plain one and a few hundred slices,
    # queries learn to tell new keys from old ones by the drift of the key
    # encoder, not images: all embeddings end up parallel.
    neck=dict(
        _delete_=True,
        type='NonLinearNeck',
        in_channels=512,
        hid_channels=512,
        out_channels=128,
        norm_cfg=dict(type='BN1d')))
