"""ResNet that pads as TensorFlow and Haiku do."""

from typing import Any

from mmpretrain.models.backbones import ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from medssl_mm.registry import MODELS


class SamePaddingMaxPool2d(nn.Module):
    """Max-pooling of 3x3 windows and stride 2; no cell is left out.

    Of what has to be padded the smaller half is put before the image: nothing
    on an even size.

    Shape: ``(N, C, H, W)`` -> ``(N, C, ceil(H / 2), ceil(W / 2))``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pad and pool."""
        height, width = (size % 2 for size in x.shape[2:])
        padded = F.pad(x, (width, 1, height, 1), value=float('-inf'))
        return F.max_pool2d(padded, 3, 2)


@MODELS.register_module()
class ResNetSamePadding(ResNet):
    """mmpretrain's ``ResNet`` with SAME padding of convolutions and max-pooling.

    torch pads a convolution of stride 2 alike on both sides, TensorFlow and
    Haiku, on an even size, more at the end: weights trained there see the image
    half a cell off in a plain ResNet (BYOL on ImageNet: 70 instead of 74.6 % by
    a linear classifier, issue 84 of deepmind-research). Names in the state dict
    are those of a ResNet.

    Args:
        depth (int): 18, 34, 50, 101 or 152.
        convolutions (bool): Whether it holds for convolutions, too; False for
            weights of SimCLR, which pads them as torch does. Defaults to True.
        **kwargs: Arguments of mmpretrain's ``ResNet``, without ``conv_cfg``.
    """

    def __init__(self, depth: int, convolutions: bool = True, **kwargs: Any) -> None:
        kind = dict(type='Conv2dAdaptivePadding') if convolutions else None
        super().__init__(depth, conv_cfg=kind, **kwargs)
        self.maxpool = SamePaddingMaxPool2d()
