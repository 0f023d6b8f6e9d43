"""Agreement of the outputs of two networks."""

import torch
from torch import Tensor

from .precision import at_least_float32


def probability_distance(logits: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of class probabilities.

    The consistency cost of `Mean teachers are better role models
    <https://arxiv.org/abs/1703.01780>`_, averaged over images, classes and
    positions. Computed in float32 (float64 stays float64).

    Args:
        logits (Tensor): Of the network that learns.
        target (Tensor): Logits of the other one; it gets no gradient.

    Shape: ``(N, C, ...)`` twice. Returns a scalar, 0 to 2 / C.

    Raises:
        ValueError: The shapes differ.
    """
    if logits.shape != target.shape:
        raise ValueError(
            'logits and target must have one shape, got '
            f'{tuple(logits.shape)} and {tuple(target.shape)}'
        )
    own = at_least_float32(logits).softmax(dim=1)
    other = at_least_float32(target.detach()).softmax(dim=1)
    return (own - other).square().mean()


def ramp_up(step: Tensor, length: int) -> Tensor:
    r"""Factor that rises from about 0 to 1.

    .. math:: \exp(-5 (1 - k / K)^2), \quad k \le K

    of `Temporal ensembling <https://arxiv.org/abs/1610.02242>`_.

    Args:
        step (Tensor): Steps done, k.
        length (int): K; 0 is 1 from the start.

    Shape: scalar. Returns a scalar.
    """
    if not length:
        return torch.ones_like(step, dtype=torch.float32)
    share = (step.to(torch.float32) / length).clamp(max=1)
    return torch.exp(-5 * (1 - share).square())
