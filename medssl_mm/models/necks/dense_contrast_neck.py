"""Vectors of all places of a map, for dense contrast."""

from dataclasses import dataclass
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from medssl_mm.errors import UserError
from medssl_mm.functional.contrastive import unit_rows
from medssl_mm.registry import MODELS


@dataclass(frozen=True)
class DensePlaces:
    """The places of one view.

    Args:
        directions (Tensor): ``(N, R, C)``, the backbone's features of unit length,
            without gradient: what places are matched by.
        features (Tensor): ``(N, R, D)``, projected, not normalised: what is
            contrasted.
    """

    directions: Tensor
    features: Tensor


@MODELS.register_module()
class DenseContrastNeck(BaseModule):
    """Projects every place of a map, as DenseCL does.

    Two 1x1 convolutions with a ReLU between them: the dense head of `DenseCL
    <https://arxiv.org/abs/2011.09157>`_. A neck of
    :class:`medssl_mm.models.heads.MultiLevelHead` for maps of any stage, with
    :class:`medssl_mm.models.losses.DenseInfoNCELoss`.

    Args:
        in_channels (int): Channels of the map.
        hid_channels (int): Channels between the convolutions; filled in with those of
            the map when left out of a config.
        out_channels (int): Length of a vector. Defaults to 128.
        grid_size (int, optional): The map is averaged over so many cells per side
            first. Defaults to None: its own positions.
        init_cfg (dict, optional): Initialisation of mmengine. Defaults to None.
    """

    def __init__(
        self,
        in_channels: int,
        hid_channels: int,
        out_channels: int = 128,
        grid_size: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        sizes = [in_channels, hid_channels, out_channels]
        sizes += [] if grid_size is None else [grid_size]
        if min(sizes) < 1:
            raise UserError(
                'in_channels, hid_channels, out_channels and grid_size must be at '
                f'least 1, got {", ".join(map(str, sizes))}'
            )
        self.grid_size = grid_size
        self.projector = nn.Sequential(
            nn.Conv2d(in_channels, hid_channels, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hid_channels, out_channels, 1),
        )

    def forward(self, level: Tensor, view: int, context: Any) -> DensePlaces:
        """Project the map of one view.

        Shape: level ``(N, C, H, W)``.
        """
        if level.ndim != 4:
            raise UserError(
                'DenseContrastNeck needs a map (N, C, H, W), got '
                f'{tuple(level.shape)}; leave out any pooling before it'
            )
        if self.grid_size is not None:
            level = F.adaptive_avg_pool2d(level, self.grid_size)
        directions = unit_rows(level.detach().flatten(2).mT)
        return DensePlaces(directions, self.projector(level).flatten(2).mT)
