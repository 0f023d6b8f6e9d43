# ResNet-18, trained with labels, of torchvision (IMAGENET1K_V1).
_base_ = '_base_/resnet18.py'
encoder = dict(
    title='Supervised ResNet-18',
    converter='torchvision',
    file_names=['resnet18-f37072fd.pth'],
    source='torchvision, weights IMAGENET1K_V1',
    imagenet_top1=69.758,
    group='supervised',
)
