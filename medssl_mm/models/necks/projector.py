"""The projector that necks of several methods have in common."""

from collections.abc import Callable

from mmcv.cnn import build_norm_layer
from torch import nn

from medssl_mm.errors import UserError


def projector(
    in_channels: int,
    hid_channels: int,
    out_channels: int,
    layers: int,
    norm_cfg: dict,
    layer: Callable[[int, int], nn.Module],
) -> nn.Sequential:
    """Stack layers, each but the last one followed by normalisation and ReLU.

    Args:
        in_channels (int): Channels of the input.
        hid_channels (int): Channels between the layers.
        out_channels (int): Channels of the output.
        layers (int): Their number.
        norm_cfg (dict): Normalisation between them.
        layer (Callable): Makes one from the channels before and after it.

    Raises:
        UserError: A number below 1.
    """
    if min(in_channels, hid_channels, out_channels, layers) < 1:
        raise UserError(
            'in_channels, hid_channels, out_channels and layers must be '
            f'at least 1, got {in_channels}, {hid_channels}, '
            f'{out_channels} and {layers}'
        )
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        parts += [
            layer(in_channels, hid_channels),
            build_norm_layer(norm_cfg, hid_channels)[1],
            nn.ReLU(inplace=True),
        ]
        in_channels = hid_channels
    return nn.Sequential(*parts, layer(in_channels, out_channels))
