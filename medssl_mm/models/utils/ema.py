"""The slowly following copy of a module."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn

from medssl_mm.errors import UserError

BUFFERS = ('copied', 'own')
# Batches without an update after which it is taken for forgotten: more than any
# sensible accumulation of gradients.
PATIENCE = 1000


def cosine_decay(base: float, progress: float) -> float:
    r"""Decay that rises from ``base`` to 1 along half a cosine.

    .. math:: 1 - (1 - base) \, (\cos(\pi k / K) + 1) / 2

    of `Bootstrap Your Own Latent <https://arxiv.org/abs/2006.07733>`_.

    Args:
        base (float): At the start, between 0 and 1.
        progress (float): :math:`k / K`, the share of the run that is done,
            0-1.
    """
    return 1 - (1 - base) * (math.cos(math.pi * progress) + 1) / 2


class ForeachEMA(ExponentialMovingAverage):
    r"""Exponential moving average of a module's parameters, in few calls.

    .. math:: p_{avg} \leftarrow d \, p_{avg} + (1 - d) \, p

    with :math:`d` = ``decay``, or what :func:`cosine_decay` makes of it.
    Until the first update, or :meth:`start`, the average is nothing yet: that
    call copies parameters and buffers, so that weights loaded after
    construction count. Equal to the host's
    ``ExponentialMovingAverage(momentum=1 - decay)``, whose per-tensor Python
    loop it replaces by one call for all tensors. This is the one place that
    turns a decay into the host's momentum.

    Args:
        model (nn.Module): The module to follow; deep-copied.
        decay (float): Share of the old average kept at an update, between 0
            and 1. Defaults to 0.999.
        buffers (str): ``'copied'``: those of the model are copied at every
            update, as the host does; ``'own'``: the copy, when it runs in
            training mode, keeps statistics of its own. Defaults to 'copied'.

    Raises:
        ValueError: When decay is not strictly between 0 and 1, or buffers
            unknown.
    """

    def __init__(
        self, model: nn.Module, decay: float = 0.999, buffers: str = 'copied'
    ) -> None:
        if not 0 < decay < 1:
            raise ValueError(
                f'ema_decay must lie strictly between 0 and 1 (0.999 keeps '
                f'999/1000 of the old average at a step), got {decay}'
            )
        if buffers not in BUFFERS:
            raise ValueError(f'buffers must be one of {BUFFERS}, got {buffers!r}')
        super().__init__(model, momentum=1 - decay)
        self.decay = decay
        self.buffers_mode = buffers
        self._started = False
        self._batches_since_update = 0

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.look_again()

    def look_again(self) -> None:
        """Look at the step count again: weights have been loaded."""
        self._started = False

    @torch.no_grad()
    def start(self, model: nn.Module) -> None:
        """Copy the model, unless the average is one of some updates already.

        Args:
            model (nn.Module): The followed module, structured as the copy.
        """
        # The step count is a tensor: it is read once, not in every step,
        # because reading makes a GPU wait.
        if not self._started and not bool(self.steps > 0):
            _copy(self.module.parameters(), model.parameters())
            _copy(self.module.buffers(), model.buffers())
        self._started = True

    @torch.no_grad()
    def update_parameters(
        self, model: nn.Module, progress: float | None = None
    ) -> float:
        """Move the average one step towards ``model``.

        Args:
            model (nn.Module): The followed module, structured as the copy.
            progress (float, optional): Share of the run that is done, 0-1;
                the decay then follows :func:`cosine_decay`. Defaults to None:
                it is constant.

        Returns:
            float: The decay of this update.
        """
        self._batches_since_update = 0
        decay = self.decay if progress is None else cosine_decay(self.decay, progress)
        self.start(model)
        average: list[Tensor] = list(self.module.parameters())
        if average:
            target: list[Tensor] = list(model.parameters())
            torch._foreach_lerp_(average, target, 1 - decay)
        if self.buffers_mode == 'copied':
            _copy(self.module.buffers(), model.buffers())
        self.steps += 1
        return decay

    def expect_update(self, owner: str) -> None:
        """Count a batch of training, after which an update is expected.

        Args:
            owner (str): Name of the model, for the message.

        Raises:
            UserError: None came for more than ``PATIENCE`` batches.
        """
        self._batches_since_update += 1
        if self._batches_since_update > PATIENCE:
            raise UserError(
                f'{owner}: the slow copy has not followed for {PATIENCE} batches; add '
                'dict(type="medssl_mm.TargetUpdateHook") to custom_hooks or '
                'default_hooks, or call model.update_target(progress) after every '
                'step of the optimizer'
            )


def _copy(targets: Iterable[Tensor], sources: Iterable[Tensor]) -> None:
    written = list(targets)
    if written:
        torch._foreach_copy_(written, list(sources))
