# DenseNet-121, trained with labels, of torchvision (IMAGENET1K_V1).
_base_ = '_base_/densenet121.py'
encoder = dict(
    title='Supervised DenseNet-121',
    converter='torchvision',
    file_names=['densenet121-a639ec97.pth'],
    source='torchvision, weights IMAGENET1K_V1',
    imagenet_top1=74.434,
    group='supervised',
)
