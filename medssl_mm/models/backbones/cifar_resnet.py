"""The small ResNets of the CIFAR experiments."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS


class _Block(nn.Module):
    """Two convolutions, and a way past them that has no weights."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.added = stride, channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.added:
            before = self.added // 2
            x = F.pad(
                x[:, :, :: self.stride, :: self.stride],
                (0, 0, 0, 0, before, self.added - before),
            )
        return F.relu(out + x)


@MODELS.register_module()
class CifarResNet(BaseModule):
    """ResNet-20, 32, 44, 56, 110 ... of three stages for images of 32 pixels.

    That of section 4.2 of `Deep Residual Learning
    <https://arxiv.org/abs/1512.03385>`_: 16, 32 and 64 channels; where their
    number grows the shortcut leaves out every second position and puts zeros
    into the new channels (option A). The hosts' ``ResNet_CIFAR`` is another
    network: a ResNet of four stages with a smaller stem.

    Args:
        depth (int): 6 n + 2, with n blocks per stage.
        in_channels (int): Of the images. Defaults to 3.
        out_indices (Sequence[int]): Stages to return, from 0. Defaults to
            (2,).
        init_cfg (dict, optional): Initialisation. Defaults to None.

    Shape: ``(N, in_channels, H, W)`` -> a tuple of ``(N, 16 * 2**i,
        H / 2**i, W / 2**i)``, i one of ``out_indices``.

    Raises:
        UserError: Another depth, or no such stage.
    """

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        out_indices: Sequence[int] = (2,),
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise UserError(
                f'CifarResNet: depth must be 6 n + 2 (20, 32, 44, 56, 110), got {depth}'
            )
        if not set(out_indices) <= {0, 1, 2}:
            raise UserError(
                f'CifarResNet: out_indices must be of 0, 1, 2, got {out_indices}'
            )
        self.out_indices = tuple(out_indices)
        self.conv1 = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        width = 16
        for stage, channels in enumerate((16, 32, 64), 1):
            layers = []
            for block in range(blocks):
                stride = 2 if stage > 1 and block == 0 else 1
                layers.append(_Block(width, channels, stride))
                width = channels
            setattr(self, f'layer{stage}', nn.Sequential(*layers))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of the stages that are asked for."""
        x = F.relu(self.bn1(self.conv1(x)))
        maps = []
        for index, stage in enumerate((self.layer1, self.layer2, self.layer3)):
            x = stage(x)
            if index in self.out_indices:
                maps.append(x)
        return tuple(maps)
