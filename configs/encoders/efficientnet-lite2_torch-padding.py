# EfficientNet-Lite2 with the padding of torch.
_base_ = 'efficientnet-lite2.py'
encoder = dict(
    title='EfficientNet-Lite2 (torch padding)',
    backbone=dict(model_name='efficientnet_lite2', bn_eps=1e-3),
)
