"""The projector in front of a Barlow Twins term."""

from functools import partial
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS

from .projector import projector


@MODELS.register_module()
class BarlowTwinsNeck(BaseModule):
    """Averages a map over its positions and projects the mean.

    ``layers`` linear maps without bias, each but the last one followed by
    normalisation and ReLU: the projector of `Barlow Twins
    <https://arxiv.org/abs/2103.03230>`_. Its last normalisation, without
    learnable parameters, is part of the loss. A neck of
    :class:`medssl_mm.models.heads.MultiLevelHead` for maps of any stage, to
    be used with ``key_neck='shared'``: the views pass one projector, each
    with batch statistics of its own, and it learns from both.

    Args:
        in_channels (int): Channels of the map.
        hid_channels (int): Channels between the layers. Defaults to 2048.
        out_channels (int): Length of an embedding. Defaults to 2048.
        layers (int): Number of linear maps. Defaults to 3.
        norm_cfg (dict): Normalisation between the layers. Defaults to
            dict(type='BN1d').
        init_cfg (dict, optional): Initialisation of mmengine. Defaults to
            None.
    """

    def __init__(
        self,
        in_channels: int,
        hid_channels: int = 2048,
        out_channels: int = 2048,
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
            norm_cfg or dict(type='BN1d'),
            partial(nn.Linear, bias=False),
        )

    def forward(self, level: Tensor, view: int, context: Any) -> Tensor:
        """Project the map of one view.

        Shape: level ``(N, C, H, W)``. Returns ``(N, D)``, not standardised.
        """
        if level.ndim != 4:
            raise UserError(
                'BarlowTwinsNeck needs a map (N, C, H, W), got '
                f'{tuple(level.shape)}; leave out any pooling '
                'before it'
            )
        return self.projector(level.mean(dim=(2, 3)))
