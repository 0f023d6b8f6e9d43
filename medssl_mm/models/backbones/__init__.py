"""Networks that the hosts lack, and theirs with a change."""

from .cifar_resnet import CifarResNet
from .efficient_net import EfficientNetAnyChannels
from .res_net_same_padding import ResNetSamePadding
from .res_net_small_stem import ResNetSmallStem

__all__ = [
    'CifarResNet',
    'EfficientNetAnyChannels',
    'ResNetSamePadding',
    'ResNetSmallStem',
]
