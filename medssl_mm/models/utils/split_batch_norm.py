"""Batch normalisation as on several processes, on one."""

import functools

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS


@MODELS.register_module()
class SplitBatchNorm(_BatchNorm):
    """Normalises parts of a batch by statistics of their own.

    What batch normalisation does on so many processes, each with its share of
    the batch: MoCo needs it, because statistics of the whole batch tell which
    keys belong to which queries (`Momentum Contrast
    <https://arxiv.org/abs/1911.05722>`_, section 3.3), and its CIFAR demo on
    one GPU takes 8 parts. Used as ``norm_cfg`` of a backbone; names in the
    state dict are those of batch normalisation.

    In training the running statistics become the mean over the parts of what
    each part alone would have made of them: the mean variance *within* a part.
    In evaluation mode they normalise all images alike, as in batch
    normalisation. Over several processes each splits its own share.

    Args:
        num_features (int): Channels.
        num_splits (int): Parts, of consecutive images. Defaults to 8.
        **kwargs: ``eps``, ``momentum``, ``affine``, ``track_running_stats``,
            ``device`` and ``dtype`` of :class:`torch.nn.BatchNorm2d`.

    Shape: ``(N, C, ...)`` -> the same; in training N is a multiple of the
        parts.

    Raises:
        UserError: No part, or a batch that they cannot share.
    """

    def __init__(
        self, num_features: int, num_splits: int = 8, **kwargs: object
    ) -> None:
        super().__init__(num_features, **kwargs)  # type: ignore[arg-type]
        if num_splits < 1:
            raise UserError(
                f'SplitBatchNorm: num_splits must be 1 or more, got {num_splits}'
            )
        self.num_splits = num_splits

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f'expected (N, C, ...), got {tuple(input.shape)}')

    def forward(self, input: Tensor) -> Tensor:
        """Normalise."""
        mean, variance = self.running_mean, self.running_var
        if self.training and not self.track_running_stats:  # as in torch
            mean = variance = None
        kept = mean is not None and variance is not None
        if self.num_splits == 1 or (kept and not self.training):
            return super().forward(input)
        self._check_input_dim(input)
        if len(input) % self.num_splits:
            raise UserError(
                f'SplitBatchNorm: {len(input)} images cannot be shared by '
                f'num_splits={self.num_splits}; choose a batch size (of each process) '
                'that is a multiple, with drop_last=True'
            )
        normalise = functools.partial(
            F.batch_norm,
            weight=self.weight,
            bias=self.bias,
            training=True,
            momentum=self._factor(),
            eps=self.eps,
        )
        parts = input.chunk(self.num_splits)
        if mean is None or variance is None:
            return torch.cat([normalise(part, None, None) for part in parts])
        means = [mean.clone() for _ in parts]
        variances = [variance.clone() for _ in parts]
        made = [normalise(*each) for each in zip(parts, means, variances)]
        with torch.no_grad():
            mean.copy_(torch.stack(means).mean(0))
            variance.copy_(torch.stack(variances).mean(0))
        return torch.cat(made)

    def _factor(self) -> float:
        """Weight of this batch in the running statistics, as in torch."""
        tracks = self.training and self.track_running_stats
        if tracks and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # a cumulative mean
                return 1.0 / float(self.num_batches_tracked)
        return 0.0 if self.momentum is None else self.momentum

    def extra_repr(self) -> str:
        """With the number of parts."""
        return f'{super().extra_repr()}, num_splits={self.num_splits}'
