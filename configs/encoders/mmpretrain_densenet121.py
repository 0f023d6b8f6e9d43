# DenseNet-121, trained with labels, of the model zoo of mmpretrain.
_base_ = '_base_/densenet121.py'
encoder = dict(
    title='DenseNet-121 (mmpretrain)',
    file_names=['densenet121_4xb256_in1k_20220426-07450f99.pth'],
    source='model zoo of mmpretrain, densenet121',
    imagenet_top1=74.96,
    group='supervised',
)
