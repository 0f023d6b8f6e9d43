"""The mean of a map as the embedding."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor

from medssl_mm.registry import MODELS


@MODELS.register_module()
class PooledNeck(BaseModule):
    """Mean over all positions, for methods whose loss needs no embedding."""

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Pool the first map.

        Shape: ``[(N, C, H, W)]`` -> ``[(N, C)]``.
        """
        return [maps[0].mean(dim=(2, 3))]
