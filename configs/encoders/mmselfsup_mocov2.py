# MoCo v2, 200 epochs, of the model zoo of mmselfsup.
_base_ = '_base_/resnet50.py'
encoder = dict(
    title='MoCo v2 (mmselfsup)',
    file_names=['mocov2_resnet50_8xb32-coslr-200e_in1k_20220825-b6d23c86.pth'],
    source='model zoo of mmselfsup 1.x, mocov2',
    imagenet_top1=67.5,
    group='ssl',
)
