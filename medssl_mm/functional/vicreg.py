"""Variance, invariance and covariance of the embeddings of two views."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .distributed import gather_with_grad, world_size
from .precision import at_least_float32


def vicreg(
    view_a: Tensor,
    view_b: Tensor,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Keep two views alike, and their channels alive and uncorrelated.

    The loss of `VICReg <https://arxiv.org/abs/2105.04906>`_, eq. (6), with the
    scales of its code: of ``N`` samples ``a`` and ``b`` with ``D`` channels

    .. math::
        L = \lambda \frac{|a - b|^2}{N D}
            + \frac\mu2 [v(a) + v(b)] + \nu [c(a) + c(b)]

    with :func:`variance_hinge` v and :func:`covariance_penalty` c, over the samples
    of all processes. Computed in float32 or better, whatever autocast says.

    Args:
        view_a (Tensor): Embeddings of the first view, not normalised.
        view_b (Tensor): Embeddings of the second view of the same samples.
        invariance_weight (float): Lambda. Defaults to 25.
        variance_weight (float): Mu. Defaults to 25.
        covariance_weight (float): Nu. Defaults to 1.

    Shape: ``(N, D)`` twice, or ``(N, R, D)``: statistics for each of R places over the
        samples, then the mean over places. The same N on all processes. Returns a
        scalar and, by name, ``invariance``, ``variance`` and ``covariance`` without
        weights or gradient; the variance is the mean, the covariance the sum over
        both views.

    Raises:
        ValueError: When the shapes differ, or there is one sample only.
    """
    if view_a.shape != view_b.shape or view_a.ndim not in (2, 3):
        raise ValueError(
            'view_a and view_b must both be (N, D) or (N, R, D), got '
            f'{tuple(view_a.shape)} and {tuple(view_b.shape)}'
        )
    with torch.autocast(view_a.device.type, enabled=False):
        view_a, view_b = at_least_float32(view_a), at_least_float32(view_b)
        # Gathered once for both of the terms that see all samples.
        centred_a, centred_b = _centred(view_a), _centred(view_b)
        terms = dict(
            invariance=F.mse_loss(view_a, view_b),
            variance=(_hinge(centred_a) + _hinge(centred_b)) / 2,
            covariance=_penalty(centred_a) + _penalty(centred_b),
        )
        loss = (
            invariance_weight * terms['invariance']
            + variance_weight * terms['variance']
            + covariance_weight * terms['covariance']
        )
    return loss, {name: term.detach() for name, term in terms.items()}


def variance_hinge(features: Tensor, eps: float = 1e-4) -> Tensor:
    r"""How far the standard deviation of channels is below 1, on average.

    :math:`\frac1D \sum_j \max(0, 1 - \sqrt{\mathrm{Var}_j + \epsilon})`, eq. (1) of
    `VICReg <https://arxiv.org/abs/2105.04906>`_, variance with N - 1.

    Args:
        features (Tensor): Embeddings.
        eps (float): Keeps the gradient finite for channels that do not vary. Defaults
            to 1e-4.

    Shape: ``(N, D)`` or ``(N, R, D)``, over N. Returns a scalar, 0 to 0.99.
    """
    return _hinge(_centred(features), eps)


def _hinge(centred: Tensor, eps: float = 1e-4) -> Tensor:
    variance = centred.square().sum(0) / (len(centred) - 1)
    return F.relu(1 - (variance + eps).sqrt()).mean()


def covariance_penalty(features: Tensor) -> Tensor:
    r"""Mean square of covariances of different channels, times D - 1.

    :math:`\frac1D \sum_{i \ne j} C_{ij}^2`, eq. (4) of `VICReg
    <https://arxiv.org/abs/2105.04906>`_. For fewer samples than channels the squares
    come from the sample-by-sample products, which gives the same number.

    Shape: ``(N, D)`` or ``(N, R, D)``, over N. Returns a scalar, 0 or more.
    """
    return _penalty(_centred(features))


def _penalty(centred: Tensor) -> Tensor:
    samples, size = len(centred), centred.shape[-1]
    if centred.ndim == 3:
        centred = centred.transpose(0, 1)  # (R, N, D)
    diagonal = centred.square().sum(-2)
    if samples < size:
        products = centred @ centred.mT
    else:
        products = centred.mT @ centred
    squares = products.square().sum((-2, -1)) - diagonal.square().sum(-1)
    return squares.mean() / (samples - 1) ** 2 / size


def _centred(features: Tensor) -> Tensor:
    """Samples of all processes less their mean, in float32 or better."""
    if len(features) * world_size() < 2:
        raise ValueError(
            f'variances take 2 samples or more, got {len(features)}; raise the batch '
            'size or drop the last batch'
        )
    with torch.autocast(features.device.type, enabled=False):
        features = gather_with_grad(at_least_float32(features))
        return features - features.mean(0)
