"""Redundancy reduction between the embeddings of two views."""

from typing import Any

import torch
from torch import Tensor, nn

from medssl_mm.functional.precision import at_least_float32
from medssl_mm.functional.redundancy import barlow_twins
from medssl_mm.registry import MODELS


@MODELS.register_module()
class BarlowTwinsLoss(nn.Module):
    """Pulls the cross-correlation of two views towards the identity.

    See :func:`medssl_mm.functional.redundancy.barlow_twins`. For a level of
    :class:`medssl_mm.models.heads.MultiLevelHead` with a
    :class:`medssl_mm.models.necks.BarlowTwinsNeck` and ``key_neck='shared'``.
    Logged besides: ``correlation``, the mean over the channels of the views'
    correlation in the batch of this process, 1 where they agree.

    Args:
        off_diagonal_weight (float): Factor of the redundancy term against
            the invariance term. Defaults to 5e-3.
    """

    def __init__(self, off_diagonal_weight: float = 5e-3) -> None:
        super().__init__()
        if not off_diagonal_weight >= 0:
            raise ValueError(
                f'off_diagonal_weight must not be negative, got {off_diagonal_weight}'
            )
        self.off_diagonal_weight = off_diagonal_weight

    def forward(self, query: Tensor, key: Tensor, context: Any) -> dict[str, Tensor]:
        """Compare the embeddings ``(N, D)`` of the two views."""
        loss = barlow_twins(query, key, self.off_diagonal_weight)
        with torch.no_grad():
            views = (at_least_float32(view) for view in (query, key))
            a, b = (view - view.mean(dim=0) for view in views)
            correlation = torch.cosine_similarity(a, b, dim=0).mean()
        return dict(loss=loss, correlation=correlation)
