# ResNets of the CIFAR experiments, trained with labels.
encoder = dict(
    backbone=dict(type='medssl_mm.CifarResNet'),
    embedding_length=64,
    preprocessing=dict(size=32),
    converter='cifar-resnet',
    source='akamaster/pytorch_resnet_cifar10 (BSD)',
    trained_on=['cifar10'],
    group='supervised',
)
