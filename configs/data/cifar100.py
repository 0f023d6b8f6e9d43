# CIFAR-100, photographs of a hundred kinds of things, 32 px in colour.
images = dict(
    type='medssl_mm.ClassificationImages',
    data_root='data/cifar100',
    split='cifar100-official',
)
