"""Networks of the hosts that need a change to take medical images."""

from .efficient_net import EfficientNetAnyChannels
from .res_net_small_stem import ResNetSmallStem

__all__ = ['EfficientNetAnyChannels', 'ResNetSmallStem']
