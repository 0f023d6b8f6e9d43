"""The projector of every place of a map."""

from functools import partial
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS

from .projector import projector


@MODELS.register_module()
class PlaceProjector(BaseModule):
    """Projects every place of a map by itself.

    ``layers`` 1x1 convolutions, each but the last one followed by normalisation and
    ReLU: the local projector of `VICRegL <https://arxiv.org/abs/2210.01571>`_. A neck
    of :class:`medssl_mm.models.heads.MultiLevelHead` for maps of any stage.

    Args:
        in_channels (int): Channels of the map.
        hid_channels (int): Channels between the layers. Defaults to 512.
        out_channels (int): Length of a vector. Defaults to 512.
        layers (int): Number of convolutions. Defaults to 3.
        norm_cfg (dict, optional): Normalisation between them. Defaults to None:
            dict(type='BN').
        init_cfg (dict, optional): Initialisation of mmengine. Defaults to None.
    """

    def __init__(
        self,
        in_channels: int,
        hid_channels: int = 512,
        out_channels: int = 512,
        layers: int = 3,
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.projector = projector(
            in_channels,
            hid_channels,
            out_channels,
            layers,
            norm_cfg or dict(type='BN'),
            partial(nn.Conv2d, kernel_size=1, bias=False),
        )

    def forward(self, level: Tensor, view: int, context: Any) -> Tensor:
        """Project the map of one view.

        Shape: level ``(N, C, H, W)``. Returns ``(N, D, H, W)``.
        """
        if level.ndim != 4:
            raise UserError(
                f'PlaceProjector needs a map (N, C, H, W), got {tuple(level.shape)}; '
                'leave out any pooling before it'
            )
        return self.projector(level)
