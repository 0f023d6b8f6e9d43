# CIFAR-10, photographs of ten kinds of things, 32 px in colour.
images = dict(
    type='medssl_mm.ClassificationImages',
    data_root='data/cifar10',
    split='cifar10-official',
)
