# Masked restoration by the encoder and the decoder of DeepLabv3+.
_base_ = 'restoration_resnet18.py'
model = dict(
    restoration=dict(decoder=dict(_delete_=True, **_base_.deeplabv3plus_decoder))
)
