# DenseNet-121 without weights of its own: random:densenet121, or densenet121:FILE.
_base_ = '_base_/densenet121.py'
encoder = dict(
    title='DenseNet-121',
    trained_on=[],
)
