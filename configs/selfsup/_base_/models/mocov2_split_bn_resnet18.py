# MoCo v2 on one process, normalised as on eight: the statistics of a whole batch
# tell which keys belong to which queries. Parts of 8 images at batch 64.
_base_ = 'mocov2_resnet18.py'
model = dict(
    backbone=dict(norm_cfg=dict(type='medssl_mm.SplitBatchNorm', num_splits=8))
)
