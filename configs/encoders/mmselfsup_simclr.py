# SimCLR, 800 epochs, of the model zoo of mmselfsup.
_base_ = '_base_/resnet50.py'
encoder = dict(
    title='SimCLR (mmselfsup)',
    file_names=['simclr_resnet50_16xb256-coslr-800e_in1k_20220825-85fcc4de.pth'],
    source='model zoo of mmselfsup 1.x, simclr',
    imagenet_top1=69.2,
    group='ssl',
)
