"""A preprocessing that leaves pictures as they are, and small encoders."""

import numpy as np
import torch
from torch import nn


class Plain:
    """Takes pictures of the right size; values stay in 0-1."""

    def resize(self, image):
        return image if image.ndim == 3 else image[..., None]

    def normalise(self, pixels):
        return pixels


class ChannelMeans(nn.Module):
    """Blind for where something is: mean and square of every channel."""

    def forward(self, images):
        return torch.cat([images.mean((2, 3)), images.square().mean((2, 3))], dim=1)


class Lottery(nn.Module):
    """Features that have nothing to do with each other."""

    def __init__(self, length=6):
        super().__init__()
        self.length = length

    def forward(self, images):
        rows = []
        for image in images:
            content = image.double().flatten()
            key = int((content * torch.arange(1, len(content) + 1)).sum() * 1e6)
            rows.append(np.random.default_rng(key).normal(size=self.length))
        return torch.tensor(np.array(rows), dtype=torch.float32)


def convolution(channels=3, seed=0):
    """Small encoder with weights and a batch normalisation."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 5, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return network.requires_grad_(False).eval()


def pictures(count, size=32, channels=3, seed=0):
    """Smooth uint8 pictures that differ."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, channels)).astype(np.uint8)
    side = size // 4
    return list(coarse.repeat(side, axis=1).repeat(side, axis=2))
