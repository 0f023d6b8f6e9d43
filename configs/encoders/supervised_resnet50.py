# ResNet-50, trained with labels, of torchvision (IMAGENET1K_V1).
_base_ = '_base_/resnet50.py'
encoder = dict(
    title='Supervised ResNet-50',
    converter='torchvision',
    file_names=['resnet50-0676ba61.pth'],
    source='torchvision, weights IMAGENET1K_V1',
    imagenet_top1=76.13,
    group='supervised',
)
