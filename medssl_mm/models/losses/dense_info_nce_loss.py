"""InfoNCE of the places of a map against a queue of maps."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.functional.contrastive import info_nce, unit_rows
from medssl_mm.functional.geometry import take_rows
from medssl_mm.functional.precision import at_least_float32
from medssl_mm.models.utils import KeyQueue
from medssl_mm.registry import MODELS


@MODELS.register_module()
class DenseInfoNCELoss(nn.Module):
    """Finds the key's place that looks most like the query's among other images.

    The dense term of `DenseCL <https://arxiv.org/abs/2011.09157>`_, section 3:
    each place of the query's map has the place of the key's map with the most similar
    backbone features as its positive; several may have the same one. Negatives are
    the projected keys of earlier images, averaged over their places, in a queue of
    its own. DenseCL weights
    the contrastive loss and this one by one half each: a level of weight 1 is that
    with losses twice as large.

    For a level of :class:`medssl_mm.models.heads.MultiLevelHead` with a
    :class:`medssl_mm.models.necks.DenseContrastNeck`. Validation leaves the queue as
    it is. Logged besides: ``chance_level`` = log(K + 1), ``top1``, the share of
    places (0-1) nearest to their own key, and ``matched``, the share of the key's
    places (0-1) that are anyone's positive: near 1 / places where all look alike.

    Args:
        queue_len (int): Number of negatives; :class:`medssl_mm.models.algorithms.
            MultiLevelMoCo` fills in that of its own queue when left out.
        feat_dim (int): Length of the vectors, ``out_channels`` of the neck. Defaults
            to 128.
        temperature (float): Divisor of the cosines. Defaults to 0.2.
    """

    def __init__(
        self, queue_len: int, feat_dim: int = 128, temperature: float = 0.2
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise UserError(f'temperature must be positive, got {temperature}')
        self.temperature = temperature
        self.key_queue = KeyQueue(queue_len, feat_dim)

    def forward(self, query: Any, key: Any, context: Any) -> dict[str, Tensor]:
        """Compare two :class:`medssl_mm.models.necks.DensePlaces`."""
        length = query.features.shape[-1]
        if length != len(self.key_queue.queue):
            raise UserError(
                f'feat_dim={len(self.key_queue.queue)} of DenseInfoNCELoss is not '
                f'out_channels={length} of the neck before it'
            )
        device = query.features.device.type
        with torch.no_grad(), torch.autocast(device, enabled=False):
            likeness = query.directions @ key.directions.mT  # (N, R, R)
            match = likeness.argmax(dim=2)
        keys = unit_rows(key.features)
        positive = take_rows(keys, match)
        loss, top1 = info_nce(
            unit_rows(query.features).flatten(0, 1),
            positive.flatten(0, 1),
            self.key_queue.rows,
            self.temperature,
            return_top1=True,
        )
        places = torch.zeros_like(likeness[:, 0], dtype=loss.dtype)
        logs = dict(
            chance_level=torch.full_like(
                loss.detach(), math.log(self.key_queue.queue_len + 1)
            ),
            top1=top1,
            matched=places.scatter(1, match, 1.0).mean(),
        )
        if self.training:
            self.key_queue.enqueue(
                unit_rows(at_least_float32(key.features.detach()).mean(1))
            )
        return dict(loss=loss, **logs)
