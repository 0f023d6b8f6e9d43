"""ResNet for small images."""

from typing import Any

from mmcv.cnn import build_conv_layer
from mmpretrain.models.backbones import ResNet
from torch import nn

from medssl_mm.registry import MODELS


@MODELS.register_module()
class ResNetSmallStem(ResNet):
    """mmpretrain's ``ResNet`` with a first convolution 3x3 of stride 1.

    The hosts' ``ResNet_CIFAR`` is the one without max-pooling; with it, the
    residual stages work at half the size of the image. Names in the state
    dict are those of a ResNet.

    Args:
        depth (int): 18, 34, 50, 101 or 152.
        max_pool (bool): Whether the stem ends with the 3x3 max-pooling of
            stride 2. Defaults to True.
        **kwargs: Arguments of mmpretrain's ``ResNet``.
    """

    def __init__(self, depth: int, max_pool: bool = True, **kwargs: Any) -> None:
        super().__init__(depth, **kwargs)
        if not max_pool:
            self.maxpool = nn.Identity()

    def _make_stem_layer(self, in_channels: int, base_channels: int) -> None:
        super()._make_stem_layer(in_channels, base_channels)
        if self.deep_stem:
            raise ValueError(
                'ResNetSmallStem has a stem of its own: leave deep_stem out'
            )
        self.conv1 = build_conv_layer(
            self.conv_cfg,
            in_channels,
            base_channels,
            kernel_size=3,
            stride=1,
            padding=1,
            bias=False,
        )
