"""Contrast within a batch, with further loss terms on chosen stages."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from medssl_mm.functional.distributed import world_size
from medssl_mm.functional.features import evaluation_mode
from medssl_mm.registry import MODELS

from .base import BaseAlgorithm
from .encoder import EncoderOutput


@MODELS.register_module()
class MultiLevelSimCLR(BaseAlgorithm):
    """Contrast of the two views of a batch, plus a list of further terms.

    Method of `A Simple Framework for Contrastive Learning of Visual
    Representations <https://arxiv.org/abs/2002.05709>`_. Without further
    terms it computes the same numbers as the host's ``SimCLR`` on one process
    and has its names in the state dict. On several processes it has the
    gradient of the joint batch; that of the host, whose gather layer keeps
    the own part only, lacks what an embedding does as a negative elsewhere.

    The key of a further term is the map of the second view, made by the same
    encoder: both maps pass the same neck (``key_neck='shared'``), and both
    carry gradient unless the loss stops it.

    Under autocast the encoder runs in reduced precision, normalisation,
    logits and cross-entropy in float32. Logged beside the loss terms:
    ``chance_level`` = log(2N - 1), the loss of a guess among the N images of
    all processes; ``contrastive_top1``, the share of embeddings (0-1) nearest
    to their partner, ties being no hits.

    Args:
        backbone (dict): See :class:`BaseAlgorithm`.
        neck (dict): See :class:`BaseAlgorithm`.
        head (dict): Called as ``head(view_a, view_b)``; returns the loss and
            the top-1 share.
        joint_views (bool): Whether both views pass the encoder as one batch,
            with common batch statistics, as in the paper and the host;
            otherwise each view has its own. Defaults to True.
        **kwargs: ``multi_level_head``, ``decorrelation``, ``restoration``,
            ``decoder``, ``channels_last``, ``data_preprocessor`` and ``init_cfg`` of
            :class:`BaseAlgorithm`.
    """

    key_side = 'same'
    compares_images = True

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        head: dict,
        joint_views: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone=backbone, neck=neck, head=head, **kwargs)
        self.joint_views = joint_views
        self.apply_memory_format()

    def loss(
        self, inputs: Sequence[Tensor], data_samples: Sequence = (), **kwargs: Any
    ) -> dict[str, Tensor]:
        """Compute all loss terms and log values.

        Shape: two views ``(N, C, H, W)``. Returns scalars.
        """
        images = self.views(inputs)
        first, second = self._encode(images)
        logs, more = self.compare(first.embedding, second.embedding)
        if self.multi_level_head is not None:
            logs.update(self.multi_level_head(first, second, images, data_samples))
        logs.update(self.restored(images[0], data_samples))
        logs.update(more)
        return logs

    def compare(
        self, first: Tensor, second: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The loss of the embeddings of both views, and what is logged besides.

        Shape: ``(N, D)`` twice, not normalised. Returns scalars by name.
        """
        loss, top1 = self.head(first, second)
        chance = math.log(2 * len(first) * world_size() - 1)
        return dict(loss_contrastive=loss), dict(
            chance_level=torch.full_like(loss.detach(), chance), contrastive_top1=top1
        )

    @torch.no_grad()
    def predict(
        self, inputs: Sequence[Tensor], data_samples: Sequence = (), **kwargs: Any
    ) -> list[BaseDataElement]:
        """Compute the loss terms of held-out images, for a validation loop.

        The negatives are the other images of the batch. Nothing changes:
        normalisation uses the running statistics.

        Shape: two views ``(N, C, H, W)``. Returns one element whose ``loss``
            holds the scalars, as the host's loops take them.
        """
        with evaluation_mode(self):
            return [BaseDataElement(loss=self.loss(inputs, data_samples))]

    def _encode(self, images: tuple[Tensor, Tensor]) -> tuple[EncoderOutput, ...]:
        encoder = self.encoder
        if not self.joint_views:
            return encoder(images[0]), encoder(images[1])
        both = encoder(self.lay_out(torch.cat(images)))
        size = len(images[0])
        return tuple(
            EncoderOutput(
                {stage: level[part] for stage, level in both.maps.items()},
                both.embedding[part],
                both.level_necks,
            )
            for part in (slice(size), slice(size, None))
        )
