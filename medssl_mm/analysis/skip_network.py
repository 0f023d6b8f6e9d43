"""The convolutional network with skip connections that generates pictures.

Of `Deep Image Prior <https://arxiv.org/abs/1711.10925>`_, in the setting in
which features are inverted: six scales, 2,606,763 parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Channels and size of the kernel of every scale, the finest first.
SCALES = ((16, 7), (32, 7), (64, 5), (128, 5), (128, 3), (128, 3))
#: Channels of what the network gets.
NOISE_CHANNELS = 32
_SKIP_CHANNELS = 4


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.2),
    )


class _Scale(nn.Module):
    """One scale: half the size, deeper scales, and back to the size."""

    def __init__(self, inputs: int, number: int) -> None:
        super().__init__()
        channels, kernel = SCALES[number]
        self.skip = _convolution(inputs, _SKIP_CHANNELS, 1)
        first = _convolution(inputs, channels, kernel)
        # Convolves at full size and takes means then.
        first.insert(1, nn.AvgPool2d(2))
        self.down = nn.Sequential(first, _convolution(channels, channels, kernel))
        self.inner: nn.Module = nn.Identity()
        returned = channels
        if number + 1 < len(SCALES):
            self.inner = _Scale(channels, number + 1)
            returned = SCALES[number + 1][0]
        self.up = nn.Sequential(
            nn.BatchNorm2d(_SKIP_CHANNELS + returned),
            _convolution(_SKIP_CHANNELS + returned, channels, kernel),
            _convolution(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``(N, inputs, H, W)`` -> ``(N, channels, H, W)``."""
        deeper = F.interpolate(self.inner(self.down(x)), scale_factor=2, mode='nearest')
        return self.up(torch.cat([self.skip(x), deeper], dim=1))


class SkipNetwork(nn.Module):
    """Picture from noise; values are not bounded.

    Normalises by the statistics of its one picture, so it stays in training
    mode.

    Args:
        channels (int): Of the picture. Defaults to 3.

    Shape: ``(1, 32, H, W)`` -> ``(1, channels, H, W)``; sides are multiples of
        64, one of them 128 at least.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.scales = _Scale(NOISE_CHANNELS, 0)
        self.picture = nn.Conv2d(SCALES[0][0], channels, 1)

    def forward(self, noise: Tensor) -> Tensor:
        """Make the picture."""
        return self.picture(self.scales(noise))


def noise_size(size: int) -> int:
    """Side of the noise for a picture: the next multiple of 64 that works."""
    return max(128, -(-size // 64) * 64)
