"""Redundancy reduction between two views of the same samples."""

from collections.abc import Callable

import torch
from torch import Tensor

from .distributed import gather_with_grad, mean_with_grad, world_size
from .precision import at_least_float32


def barlow_twins(
    view_a: Tensor,
    view_b: Tensor,
    off_diagonal_weight: float = 5e-3,
    eps: float = 1e-5,
) -> Tensor:
    """Pull the cross-correlation of two views towards the identity.

    ``sum_i (1 - C_ii)^2 + off_diagonal_weight * sum_(i != j) C_ij^2`` of
    `Barlow Twins <https://arxiv.org/abs/2103.03230>`_, eq. (1). ``C`` is the
    correlation over the samples of all processes. For fewer samples than
    channels the sum of squares comes from the sample-by-sample products,
    which gives the same number at a fraction of the cost.

    Args:
        view_a (Tensor): Embeddings of the first view, not standardised.
        view_b (Tensor): Embeddings of the second view of the same samples.
        off_diagonal_weight (float): Factor of the redundancy term against
            the invariance term. Defaults to 5e-3.
        eps (float): Added to the variance of a channel, as in batch
            normalisation. Defaults to 1e-5.

    Shape: ``(N, D)`` twice, the same N on all processes. Returns a scalar,
        float32 at least; about ``D`` for unrelated views of many samples, 0
        for equal views with uncorrelated channels.

    Raises:
        ValueError: Shapes that differ or are not ``(N, D)``, or one sample.
    """
    _check(view_a, view_b)
    samples, size = view_a.shape
    with torch.autocast(view_a.device.type, enabled=False):
        view_a, view_b = at_least_float32(view_a), at_least_float32(view_b)
        samples *= world_size()
        if samples < size:
            view_a = _standardize(gather_with_grad(view_a), eps)
            view_b = _standardize(gather_with_grad(view_b), eps)
            diagonal = (view_a * view_b).mean(0)
            # |A^T B|^2 = <A A^T, B B^T>: (samples, samples) products only.
            squares = ((view_a @ view_a.T) * (view_b @ view_b.T)).sum()
            off_diagonal = squares / samples**2 - diagonal.square().sum()
        else:
            correlation = _cross_correlation(view_a, view_b, eps)
            diagonal = correlation.diagonal()
            off_diagonal = correlation - torch.diag(diagonal)
            off_diagonal = off_diagonal.square().sum()
        on_diagonal = (diagonal - 1).square().sum()
        return on_diagonal + off_diagonal_weight * off_diagonal


def cross_correlation(view_a: Tensor, view_b: Tensor, eps: float = 1e-5) -> Tensor:
    """Correlate the channels of two views over all processes.

    Args:
        view_a (Tensor): Embeddings of the first view.
        view_b (Tensor): Embeddings of the second view of the same samples.
        eps (float): Added to the variance of a channel. Defaults to 1e-5.

    Shape: ``(N, D)`` twice, the same N on all processes ->
        ``(D, D)``, channels of ``view_a`` down, of ``view_b`` across.
    """
    _check(view_a, view_b)
    with torch.autocast(view_a.device.type, enabled=False):
        return _cross_correlation(
            at_least_float32(view_a), at_least_float32(view_b), eps
        )


def _cross_correlation(view_a: Tensor, view_b: Tensor, eps: float) -> Tensor:
    view_a = _standardize(view_a, eps, mean_with_grad)
    view_b = _standardize(view_b, eps, mean_with_grad)
    return mean_with_grad(view_a.T @ view_b / len(view_a))


def _standardize(
    x: Tensor, eps: float, reduce: Callable[[Tensor], Tensor] = lambda local: local
) -> Tensor:
    """Zero mean and unit variance; ``reduce`` averages over the processes."""
    x = x - reduce(x.mean(0))
    return x * (reduce(x.square().mean(0)) + eps).rsqrt()


def _check(view_a: Tensor, view_b: Tensor) -> None:
    if view_a.shape != view_b.shape or view_a.ndim != 2:
        raise ValueError(
            'view_a and view_b must both be (N, D), got '
            f'{tuple(view_a.shape)} and {tuple(view_b.shape)}; pool or '
            'flatten feature maps first.'
        )
    if len(view_a) * world_size() < 2:
        raise ValueError(
            'a correlation takes 2 samples or more, got '
            f'{len(view_a)}; raise the batch size or drop the last batch.'
        )
