# BYOL, 200 epochs, of the model zoo of mmselfsup.
_base_ = '_base_/resnet50.py'
encoder = dict(
    title='BYOL (mmselfsup)',
    file_names=['byol_resnet50_16xb256-coslr-200e_in1k_20220825-de817331.pth'],
    source='model zoo of mmselfsup 1.x, byol',
    imagenet_top1=71.8,
    group='ssl',
)
