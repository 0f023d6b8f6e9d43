"""EfficientNet for images of any number of channels."""

from typing import Any

from mmcv.cnn import build_conv_layer
from mmpretrain.models.backbones import EfficientNet

from medssl_mm.registry import MODELS


@MODELS.register_module()
class EfficientNetAnyChannels(EfficientNet):
    """mmpretrain's ``EfficientNet``, which takes three channels only.

    Its names in the state dict are the same.

    Args:
        in_channels (int): Channels of the images. Defaults to 1.
        **kwargs: Arguments of mmpretrain's ``EfficientNet``.
    """

    def __init__(self, in_channels: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        old = self.layers[0].conv
        self.layers[0].conv = build_conv_layer(
            self.conv_cfg,
            in_channels,
            old.out_channels,
            kernel_size=old.kernel_size,
            stride=old.stride,
            padding=old.padding,
            bias=old.bias is not None,
        )
