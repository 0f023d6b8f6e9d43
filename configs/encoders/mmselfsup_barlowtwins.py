# Barlow Twins, 300 epochs, of the model zoo of mmselfsup.
_base_ = '_base_/resnet50.py'
encoder = dict(
    title='Barlow Twins (mmselfsup)',
    file_names=['barlowtwins_resnet50_8xb256-coslr-300e_in1k_20220825-57307488.pth'],
    source='model zoo of mmselfsup 1.x, barlowtwins',
    imagenet_top1=71.8,
    group='ssl',
)
