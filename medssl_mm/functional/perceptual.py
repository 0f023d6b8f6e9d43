"""Distance of pictures as a network sees them, without learned weights.

The formula of `The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric <https://arxiv.org/abs/1801.03924>`_, eq. (1), with all weights 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def unit_channels(maps: Tensor, eps: float = 1e-10) -> Tensor:
    """Scale the channels at every position to a vector of length 1.

    Shape: ``(N, C, H, W)``, kept.
    """
    return maps / (maps.norm(dim=1, keepdim=True) + eps)


def feature_distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    r"""Sum over layers of the mean squared distance of unit channels.

    .. math:: d = \sum_l \frac{1}{H_l W_l} \sum_{h,w}
        \lVert \hat y^l_{hw} - \hat x^l_{hw} \rVert_2^2

    Args:
        one (Sequence[Tensor]): Maps of the layers.
        other (Sequence[Tensor]): Those of the other pictures.

    Shape: ``(N, C, H, W)`` per layer -> ``(N,)``, 0 to 4 per layer.

    Raises:
        ValueError: The layers do not fit.
    """
    shapes = [[tuple(layer.shape) for layer in layers] for layers in (one, other)]
    if not one or shapes[0] != shapes[1]:
        raise ValueError(f'layers must be of equal shapes, got {shapes}')
    distances = [
        (unit_channels(a) - unit_channels(b)).square().sum(1).mean((1, 2))
        for a, b in zip(one, other)
    ]
    return torch.stack(distances).sum(0)
