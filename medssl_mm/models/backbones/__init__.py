"""Networks of the hosts that need a change to take medical images."""

from .efficient_net import EfficientNetAnyChannels

__all__ = ['EfficientNetAnyChannels']
