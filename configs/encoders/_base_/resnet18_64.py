# ResNet-18 that this package has pretrained on chest X-rays of 64 px. A network
# of grey pictures sees the mean of the three channels.
_base_ = 'resnet18.py'
encoder = dict(
    preprocessing=dict(size=64, interpolation='bilinear', normalisation='unit'),
    trained_on=[],
    source='python tools/train.py configs/selfsup/intermediate/... (see README.md)',
    group='medical ssl',
)
