"""Nearest class means of few examples."""

import torch
from torch import Tensor

from .precision import at_least_float32


def nearest_prototype(support: Tensor, query: Tensor) -> Tensor:
    """Class of each query: the one whose examples have the nearest mean.

    Squared Euclidean distance to the mean of a class's examples, as in
    `Prototypical Networks <https://arxiv.org/abs/1703.05175>`_, without any
    training. Of equally near means the first counts.

    Args:
        support (Tensor): Features of the examples.
        query (Tensor): Features of the queries.

    Shape: support ``(episodes, ways, shots, D)``, query ``(episodes, Q, D)``
        -> class numbers ``(episodes, Q)``.
    """
    with torch.autocast(support.device.type, enabled=False):
        means = at_least_float32(support).mean(dim=2)
        # Lengths far from the origin would swallow the differences.
        centre = means.mean(dim=1, keepdim=True)
        means, query = means - centre, at_least_float32(query) - centre
        # The square of the query's own length is the same for every class.
        similar = torch.einsum('eqd,ewd->eqw', query, means)
        return (similar - means.square().sum(-1)[:, None] / 2).argmax(-1)
