# MoCo-CXR, ResNet-18: CheXpert, from weights of ImageNet; 320 px, values of X-rays.
_base_ = '_base_/resnet18.py'
encoder = dict(
    title='MoCo-CXR ResNet-18',
    preprocessing=dict(size=320, mean=[0.5020], std=[0.085585]),
    converter='moco-cxr',
    file_names=['r8w-00001.pth.tar'],
    source='stanfordmlgroup/MoCo-CXR',
    trained_on=['imagenet', 'chexpert'],
    group='medical ssl',
)
