# EfficientNet-Lite0 with the padding of torch.
_base_ = 'efficientnet-lite0.py'
encoder = dict(
    title='EfficientNet-Lite0 (torch padding)',
    backbone=dict(model_name='efficientnet_lite0', bn_eps=1e-3),
)
