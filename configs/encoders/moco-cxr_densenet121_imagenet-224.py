# MoCo-CXR DenseNet-121 as published comparisons used it: pictures of 224 px, with
# the mean and deviation of ImageNet.
_base_ = 'moco-cxr_densenet121.py'
encoder = dict(
    title='MoCo-CXR DenseNet-121 (pictures as of ImageNet)',
    preprocessing=dict(size=224, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
)
