"""InfoNCE of the places of a map against a queue of maps."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.functional.contrastive import info_nce, unit_rows
from medssl_mm.functional.geometry import take_rows
from medssl_mm.functional.precision import at_least_float32
from medssl_mm.models.utils import KeyQueue, patients_of
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
    it is. Where each view is a query once, the keys of both directions are queued
    after the second one: its negatives hold nothing of the images themselves.

    Logged besides: ``chance_level`` = log(K + 1) for K negatives, ``top1``, the share
    of places (0-1) nearest to their own key, ties being no hits, and ``matched``, the
    share of the key's places (0-1) that are anyone's positive: near 1 / places where
    all look alike.

    Args:
        queue_len (int): Number of negatives; :class:`medssl_mm.models.algorithms.
            MultiLevelMoCo` fills in that of its own queue when left out.
        feat_dim (int): Length of the vectors, ``out_channels`` of the neck. Defaults
            to 128.
        temperature (float): Divisor of the cosines. Defaults to 0.2.
        mask_same_patient (bool): Whether keys of the query's own patient are left
            out of the negatives; the samples must name their ``patient_id``.
            Defaults to False; ``MultiLevelMoCo`` hands its own setting on.
    """

    def __init__(
        self,
        queue_len: int,
        feat_dim: int = 128,
        temperature: float = 0.2,
        mask_same_patient: bool = False,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise UserError(f'temperature must be positive, got {temperature}')
        self.temperature = temperature
        self.mask_same_patient = mask_same_patient
        self.key_queue = KeyQueue(queue_len, feat_dim, mask_same_patient)
        self.register_load_state_dict_pre_hook(_of_nobody)

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
        patients = masked = at_places = None
        if self.mask_same_patient:
            patients = patients_of(context.data_samples, len(keys), keys.device)
            masked = self.key_queue.same_patient(patients)
            at_places = masked.repeat_interleave(match.shape[1], 0)
        loss, top1 = info_nce(
            unit_rows(query.features).flatten(0, 1),
            positive.flatten(0, 1),
            self.key_queue.rows,
            self.temperature,
            return_top1=True,
            masked=at_places,
        )
        places = torch.zeros_like(likeness[:, 0], dtype=loss.dtype)
        logs = dict(
            chance_level=self.key_queue.chance_level(loss, masked),
            top1=top1,
            matched=places.scatter(1, match, 1.0).mean(),
        )
        if self.training:
            means = unit_rows(at_least_float32(key.features.detach()).mean(1))
            context.at_the_end(partial(self.key_queue.enqueue, means, patients))
        return dict(loss=loss, **logs)


def _of_nobody(module: nn.Module, state_dict: dict, prefix: str, *_: Any) -> None:
    """Take keys of a checkpoint that does not say whose they are for nobody's."""
    queue = state_dict.get(f'{prefix}key_queue.queue')
    if module.mask_same_patient and queue is not None:
        state_dict.setdefault(
            f'{prefix}key_queue.queue_patients',
            torch.zeros(queue.shape[1], dtype=torch.long, device=queue.device),
        )
