# ResNet-50 without weights of its own: random:resnet50, or resnet50:FILE.
_base_ = '_base_/resnet50.py'
encoder = dict(
    title='ResNet-50',
    trained_on=[],
)
