"""Momentum contrast with further loss terms on chosen stages."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from medssl_mm.errors import UserError
from medssl_mm.functional.contrastive import unit_rows
from medssl_mm.functional.distributed import (
    exchange,
    shared_permutation,
    world_size,
)
from medssl_mm.functional.features import evaluation_mode
from medssl_mm.models.utils import (
    ForeachEMA,
    KeyQueue,
    SplitBatchNorm,
    hoist_state,
    patients_of,
    with_defaults,
    with_missing,
)
from medssl_mm.registry import MODELS

from .base import BaseAlgorithm
from .encoder import Encoder, EncoderOutput


@MODELS.register_module()
class MultiLevelMoCo(BaseAlgorithm):
    """Momentum contrast; the sum of its loss and of a list of further terms.

    Method of `Improved Baselines with Momentum Contrastive Learning
    <https://arxiv.org/abs/2003.04297>`_. Without further terms it computes
    the same numbers as the host's ``MoCo`` and has its names in the state
    dict. Differs from it in speed: the key encoder follows in one call for
    all tensors, the queue is never copied, and on one process the batch is
    not shuffled, which could not change any statistics there.

    The first view is the query's, the second one the key's. Under autocast
    the encoders run in reduced precision, normalisation, logits and
    cross-entropy in float32.

    Logged beside the loss terms: ``chance_level`` = log(K + 1), the
    contrastive loss of a guess among K keys, weighted like it; ``queue_fill``, the
    share of the queue (0-1) that holds keys rather than its random start;
    ``contrastive_top1``, the share of queries (0-1) nearest to their own key, ties
    being no hits.

    Args:
        backbone (dict): See :class:`BaseAlgorithm`.
        neck (dict): See :class:`BaseAlgorithm`.
        head (dict): Called as ``head(query, key, queue)`` with normalised
            rows; returns the loss and the top-1 share.
        queue_len (int): Number of negative keys, a multiple of the global
            batch size and better smaller than the data set; also of further terms
            that have a queue of their own and do not say its length. Defaults to
            65536.
        feat_dim (int): Length of the embeddings. Defaults to 128.
        ema_decay (float): Share of the old weights that the key encoder keeps
            at a step. Defaults to 0.999.
        mask_same_patient (bool): Whether keys of the query's own patient, other
            slices and moments of the same anatomy, are left out of the negatives,
            in the queues of further terms as well; the samples must name their
            ``patient_id``. Defaults to False.
        contrast_weight (float): Factor of the contrastive loss, where further terms
            share the whole with it. Defaults to 1.0.
        **kwargs: ``multi_level_head``, ``decorrelation``, ``restoration``,
            ``decoder``, ``channels_last``, ``data_preprocessor`` and ``init_cfg`` of
            :class:`BaseAlgorithm`.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        head: dict,
        queue_len: int = 65536,
        feat_dim: int = 128,
        ema_decay: float = 0.999,
        mask_same_patient: bool = False,
        contrast_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        if not contrast_weight >= 0:
            raise UserError(
                f'contrast_weight must not be negative, got {contrast_weight}'
            )
        levels = _with_queue(
            kwargs.pop('multi_level_head', None), queue_len, mask_same_patient
        )
        super().__init__(
            backbone=backbone, neck=neck, head=head, multi_level_head=levels, **kwargs
        )
        self.encoder_k = ForeachEMA(self.encoder, ema_decay)
        self._split = any(isinstance(m, SplitBatchNorm) for m in self.encoder.modules())
        self.mask_same_patient = mask_same_patient
        self.contrast_weight = contrast_weight
        self.key_queue = KeyQueue(queue_len, feat_dim, mask_same_patient)
        hoist_state(self, 'key_queue')  # the host's names: queue, queue_ptr
        self.apply_memory_format()

    @property
    def encoders(self) -> dict[str, Encoder]:
        """The query's encoder 'online' and the key encoder 'target'."""
        self.encoder_k.start(self.encoder)
        return {**super().encoders, 'target': self.encoder_k.module}

    def loss(
        self, inputs: Sequence[Tensor], data_samples: Sequence = (), **kwargs: Any
    ) -> dict[str, Tensor]:
        """Compute all loss terms and log values, and queue the keys.

        Shape: two views ``(N, C, H, W)``. Returns scalars.
        """
        images = self.views(inputs)
        self.key_queue.check_batch(len(images[0]) * world_size())
        encoder = self.encoder
        query = encoder(images[0])
        # After the query's pass, because the running statistics that it
        # changed are copied, too.
        self.encoder_k.update_parameters(encoder)
        key = self._encode_keys(images[1])
        key_rows = unit_rows(key.embedding)
        patients = self._patients(data_samples, key_rows)
        logs = self._terms(query, key, key_rows, images, data_samples, patients)
        self.key_queue.enqueue(key_rows, patients)
        keys_seen = self.encoder_k.steps * (len(key_rows) * world_size())
        logs['queue_fill'] = (keys_seen / self.key_queue.queue_len).clamp(max=1)
        return logs

    @torch.no_grad()
    def predict(
        self, inputs: Sequence[Tensor], data_samples: Sequence = (), **kwargs: Any
    ) -> list[BaseDataElement]:
        """Compute the loss terms of held-out images, for a validation loop.

        The keys of the queue are the negatives. Nothing changes: the key
        encoder stays, its keys are not queued, and normalisation uses the
        running statistics.

        Shape: two views ``(N, C, H, W)``. Returns one element whose ``loss``
            holds the scalars, as the host's loops take them.
        """
        with evaluation_mode(self):
            images = self.views(inputs)
            query, key = self.encoder(images[0]), self.encoder_k.module(images[1])
            rows = unit_rows(key.embedding)
            patients = self._patients(data_samples, rows)
            logs = self._terms(query, key, rows, images, data_samples, patients)
        return [BaseDataElement(loss=logs)]

    def _terms(
        self,
        query: EncoderOutput,
        key: EncoderOutput,
        key_rows: Tensor,
        images: tuple[Tensor, Tensor],
        data_samples: Sequence,
        patients: Tensor | None,
    ) -> dict[str, Tensor]:
        more = {}
        if patients is not None:
            more['masked'] = self.key_queue.same_patient(patients)
        loss, top1 = self.head(
            unit_rows(query.embedding), key_rows, self.key_queue.rows, **more
        )
        logs = dict(loss_contrastive=loss * self.contrast_weight)
        if self.multi_level_head is not None:
            logs.update(self.multi_level_head(query, key, images, data_samples))
        logs.update(self.restored(images[0], data_samples))
        chance = self.key_queue.chance_level(loss, more.get('masked'))
        logs['chance_level'] = chance * self.contrast_weight
        logs['contrastive_top1'] = top1
        return logs

    def _patients(self, data_samples: Sequence, rows: Tensor) -> Tensor | None:
        """Number of each sample's patient, where they are asked for."""
        if not self.mask_same_patient:
            return None
        return patients_of(data_samples, len(rows), rows.device)

    @torch.no_grad()
    def _encode_keys(self, images: Tensor) -> EncoderOutput:
        """Encode with images of all processes mixed, return the own ones.

        Mixing keeps the batch statistics from telling which keys belong to
        which queries; on one process those of split normalisation.
        """
        encoder = self.encoder_k.module
        if world_size() == 1 and not (self._split and encoder.training):
            return encoder(images)
        mixing = shared_permutation(len(images) * world_size(), images.device).cpu()
        mixed = encoder(self.lay_out(exchange(images, mixing)))
        back = mixing.argsort()
        wanted = self.multi_level_head.places if self.multi_level_head else ()
        return replace(
            mixed,
            maps={place: exchange(mixed.maps[place], back) for place in wanted},
            embedding=exchange(mixed.embedding, back),
        )


def _with_queue(
    settings: dict | None, queue_len: int, mask_same_patient: bool
) -> dict | None:
    """Losses of levels that have a queue of their own make and use it alike."""
    if not settings:
        return settings
    levels = []
    for level in settings.get('levels', ()):
        if 'loss' in level:
            loss = with_missing(
                level['loss'], dict(queue_len=lambda: queue_len), MODELS
            )
            if mask_same_patient:
                loss = with_defaults(loss, dict(mask_same_patient=True), MODELS)
            level = dict(level, loss=loss)
        levels.append(level)
    return dict(settings, levels=levels)
