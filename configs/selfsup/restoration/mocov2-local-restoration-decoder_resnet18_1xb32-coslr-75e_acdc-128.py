# MoCo v2 + local contrast + masked restoration of the query's view by the decoder of
# DeepLabv3+, on ACDC (acdc-20).
_base_ = [
    '../mocov2/mocov2-local_resnet18_1xb32-coslr-75e_acdc-128.py',
    '../_base_/levels/decoders.py',
]
model = dict(
    restoration=dict(
        type='medssl_mm.RestorationHead', decoder=_base_.deeplabv3plus_decoder
    )
)
steps = _base_.train_dataloader.dataset.pipeline
train_dataloader = dict(
    dataset=dict(pipeline=[*steps[:-1], _base_.hide_patches, steps[-1]])
)
