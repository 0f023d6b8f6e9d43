# EfficientNet-Lite1 with the padding of torch.
_base_ = 'efficientnet-lite1.py'
encoder = dict(
    title='EfficientNet-Lite1 (torch padding)',
    backbone=dict(model_name='efficientnet_lite1', bn_eps=1e-3),
)
