"""Predicting a slow copy's embeddings, with further terms on chosen stages."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from medssl_mm.errors import UserError
from medssl_mm.functional.features import evaluation_mode
from medssl_mm.models.utils import ForeachEMA
from medssl_mm.registry import MODELS

from .base import BaseAlgorithm
from .encoder import Encoder


@MODELS.register_module()
class MultiLevelBYOL(BaseAlgorithm):
    r"""Prediction of a slow copy's embeddings, plus a list of further terms.

    Method of `Bootstrap Your Own Latent
    <https://arxiv.org/abs/2006.07733>`_. The online encoder and a predictor
    predict what the target, the slow copy of the encoder, makes of the other
    view; both directions are averaged:

    .. math:: L = \tfrac12 [-\cos(q(z_1), z'_2) - \cos(q(z_2), z'_1)]

    from -1 to 1. The state dict has the names of the host's ``BYOL``, whose
    loss is four times as large. The target follows *after* the step of the
    optimizer, by :meth:`update_target`, which
    :class:`medssl_mm.engine.TargetUpdateHook` calls with the share of the run
    that is done; the host's follows at the beginning of the next forward
    pass, so that a checkpoint lacks its last step. Before the first step the
    target is the online encoder, with whatever weights were loaded.

    Each view passes each encoder by itself, with batch statistics of its own.
    The target runs in training mode, too.

    The key of a further term is the target's map of the other view, and a
    term is the mean of both directions, as the loss is.

    Args:
        backbone (dict): See :class:`BaseAlgorithm`.
        neck (dict): The projector; see :class:`BaseAlgorithm`.
        head (dict): Holds the predictor; called as ``head(embedding,
            target)`` for each direction, returns a scalar. The host's
            ``LatentPredictHead`` with :class:`medssl_mm.models.losses.
            LatentPredictionLoss` fits.
        ema_decay (float): Share of its weights that the target keeps at the
            first step; rises to 1 along half a cosine. Defaults to 0.99.
        target_statistics (str): Running statistics of the target's
            normalisation, which evaluation uses: ``'own'``, of its own
            passes, or ``'copied'`` from the online encoder at every step, as
            the host does. Defaults to 'own'.
        **kwargs: ``multi_level_head``, ``decorrelation``, ``restoration``,
            ``decoder``, ``channels_last``, ``data_preprocessor`` and ``init_cfg`` of
            :class:`BaseAlgorithm`.
    """

    key_side = 'both'
    evaluated = 'target'

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        head: dict,
        ema_decay: float = 0.99,
        target_statistics: str = 'own',
        **kwargs: Any,
    ) -> None:
        if target_statistics not in ('own', 'copied'):
            raise UserError(
                'target_statistics must be "own" or "copied", got '
                f'{target_statistics!r}'
            )
        super().__init__(backbone=backbone, neck=neck, head=head, **kwargs)
        self.target_net = ForeachEMA(self.encoder, ema_decay, target_statistics)
        self.apply_memory_format()

    def init_weights(self) -> None:
        """Initialise; the target starts from the weights that come of it."""
        super().init_weights()
        self.target_net.start(self.encoder)

    @property
    def target(self) -> Encoder:
        """The slow copy; the online encoder's weights before the first step."""
        self.target_net.start(self.encoder)
        return self.target_net.module

    @property
    def encoders(self) -> dict[str, Encoder]:
        """The 'online' encoder and the 'target'."""
        return {**super().encoders, 'target': self.target}

    def update_target(self, progress: float) -> float:
        """Let the target follow; to be called after the optimizer's step.

        Args:
            progress (float): Share of the run that is done, 0-1: iteration
                k, from 0, by the number of iterations K.

        Returns:
            float: What the target kept of its weights, tau.
        """
        return self.target_net.update_parameters(self.encoder, progress)

    def loss(
        self, inputs: Sequence[Tensor], data_samples: Sequence = (), **kwargs: Any
    ) -> dict[str, Tensor]:
        """Compute all loss terms.

        Shape: two views ``(N, C, H, W)``. Returns scalars.
        """
        images = self.views(inputs)
        if self.training:
            self.target_net.expect_update(type(self).__name__)
        target = self.target
        encoder = self.encoder
        online = [encoder(view) for view in images]
        with torch.no_grad():
            slow = [target(view) for view in images]
        there = self.head(online[0].embedding, slow[1].embedding)
        back = self.head(online[1].embedding, slow[0].embedding)
        logs = dict(loss_latent_prediction=(there + back) / 2)
        if self.multi_level_head is not None:
            logs.update(self.multi_level_head(online, slow, images, data_samples))
        logs.update(self.restored(images[0], data_samples))
        return logs

    @torch.no_grad()
    def predict(
        self, inputs: Sequence[Tensor], data_samples: Sequence = (), **kwargs: Any
    ) -> list[BaseDataElement]:
        """Compute the loss terms of held-out images, for a validation loop.

        Nothing changes: the target stays, and normalisation uses the running
        statistics.

        Shape: two views ``(N, C, H, W)``. Returns one element whose ``loss``
            holds the scalars, as the host's loops take them.
        """
        with evaluation_mode(self):
            return [BaseDataElement(loss=self.loss(inputs, data_samples))]
