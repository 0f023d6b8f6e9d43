# SwAV, 200 epochs, of the model zoo of mmselfsup.
_base_ = '_base_/resnet50.py'
encoder = dict(
    title='SwAV (mmselfsup)',
    file_names=[
        'swav_resnet50_8xb32-mcrop-2-6-coslr-200e_in1k-224-96_20220825-5b3fc7fc.pth'
    ],
    source='model zoo of mmselfsup 1.x, swav',
    imagenet_top1=70.5,
    group='ssl',
)
