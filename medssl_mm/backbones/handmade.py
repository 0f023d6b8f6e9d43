"""The family without weights: one map of hand-made features."""

from functools import cached_property

from torch import nn

from .base import Backbone, Tap


class HandmadeBackbone(Backbone):
    """``medssl_mm.HandmadeFeatures`` and ``medssl_mm.RawPixels``: one place."""

    family = 'hand-made features'

    @staticmethod
    def fits(network: nn.Module) -> bool:
        """Whether there are ``pixel_features``."""
        return isinstance(getattr(network, 'pixel_features', None), nn.Module)

    def taps(self) -> dict[str, Tap]:
        """The only map."""
        return {'stage1': Tap(self.network.pixel_features)}

    @property
    def outputs(self) -> int:
        """One map."""
        return 1

    # Without weights nothing tells the type and the device of an image to probe
    # with; the network states what a probe would find.

    @cached_property
    def in_channels(self) -> int:
        """Channels of the images."""
        return self.network.in_channels

    @cached_property
    def _probed(self) -> dict[int, tuple[int, int]]:
        return {1: (self.network.out_channels, 1)}

    @cached_property
    def output_channels(self) -> tuple[int, ...]:
        """Those of the only map."""
        return (self.network.out_channels,)
