"""The local term of the released code, which trains nothing."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl_mm.functional.precision import at_least_float32
from medssl_mm.registry import MODELS


@MODELS.register_module()
class ReleaseLocalLoss(nn.Module):
    """Local term of the method's released code, in place of LocalInfoNCELoss.

    INERT: see :func:`release_local_term`. Computed from the images only, it
    has no gradient and stays at log 400.
    """

    def forward(self, query: Any, key: Any, context: Any) -> dict[str, Tensor]:
        """Compute the term of the two views of ``context``."""
        return dict(loss=release_local_term(*context.images))


@torch.no_grad()
def release_local_term(
    view_a: Tensor, view_b: Tensor, temperature: float = 0.2, num_regions: int = 20
) -> Tensor:
    """Local term of the method's released code; it trains nothing.

    It is computed from the input images alone, so it is constant in the
    parameters. Each view is max-pooled as a ResNet stem does, brought to unit
    length over space and averaged over channels; the regions are squares down
    the left edge. The 20 dot products of equal regions and the 380 of unlike
    ones form one row of logits per image whose target is the first. Values
    of maps of unit length being small, the result is log 400 = 5.99 whatever
    the views show. Kept to name that number in a reproduction.

    Args:
        view_a (Tensor): First view.
        view_b (Tensor): Second view.
        temperature (float): Divisor of the dot products. Defaults to 0.2.
        num_regions (int): Number of squares. Defaults to 20.

    Shape: views ``(N, C, H, W)``, H and W at least ``2 * num_regions``.
        Returns a scalar without graph.
    """
    # Half the shorter side, rounded up, in as many squares.
    side = (min(view_a.shape[-2:]) + 1) // 2 // num_regions
    if view_a.ndim != 4 or view_a.shape != view_b.shape or not side:
        raise ValueError(
            f'views must be (N, C, H, W) of at least {2 * num_regions} '
            f'pixels, got {tuple(view_a.shape)} and {tuple(view_b.shape)}'
        )
    regions = []
    for view in (view_a, view_b):
        pooled = F.max_pool2d(at_least_float32(view), 3, stride=2, padding=1)
        level = F.normalize(pooled.flatten(2), dim=2).view_as(pooled).mean(1)
        squares = level[:, : num_regions * side, :side]
        regions.append(squares.reshape(len(view), num_regions, -1))
    with torch.autocast(view_a.device.type, enabled=False):
        logits = regions[0] @ regions[1].mT / temperature  # (N, R, R)
    positive = logits.diagonal(dim1=1, dim2=2)
    return (logits.flatten(1).logsumexp(dim=1) - positive[:, 0]).mean()
