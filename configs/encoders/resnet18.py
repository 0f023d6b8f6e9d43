# ResNet-18 without weights of its own: random:resnet18, or resnet18:FILE.
_base_ = '_base_/resnet18.py'
encoder = dict(
    title='ResNet-18',
    trained_on=[],
)
