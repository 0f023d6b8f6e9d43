"""The slowly following copy of a module."""

import torch
from mmengine.model import ExponentialMovingAverage
from torch import nn


class ForeachEMA(ExponentialMovingAverage):
    r"""Exponential moving average of a module's parameters, in few calls.

    .. math:: p_{avg} \leftarrow d \, p_{avg} + (1 - d) \, p

    with :math:`d` = ``decay``; buffers are copied. The first update copies
    the parameters, too, so that weights loaded after construction count.
    Equal to the host's ``ExponentialMovingAverage(momentum=1 - decay)``,
    whose per-tensor Python loop it replaces by one call for all tensors. This
    is the one place that turns a decay into the host's momentum.

    Args:
        model (nn.Module): The module to follow; deep-copied.
        decay (float): Share of the old average kept at an update, between 0
            and 1. Defaults to 0.999.

    Raises:
        ValueError: When decay is not strictly between 0 and 1.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(
                f'ema_decay must lie strictly between 0 and 1 (0.999 keeps '
                f'999/1000 of the old average at a step), got {decay}'
            )
        super().__init__(model, momentum=1 - decay)
        self._started = False

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._started = False  # look at the loaded step count again

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Moves the average one step towards ``model``.

        Args:
            model (nn.Module): The followed module, structured as the copy.
        """
        average = list(self.module.parameters())
        source = list(model.parameters())
        # The step count is a tensor: it is read once, not in every step,
        # because reading makes a GPU wait.
        if not self._started:
            self._started = bool(self.steps > 0)
        if self._started:
            torch._foreach_lerp_(average, source, self.momentum)
        elif average:
            torch._foreach_copy_(average, source)
        self._started = True
        buffers = list(self.module.buffers())
        if buffers:
            torch._foreach_copy_(buffers, list(model.buffers()))
        self.steps += 1
