"""Figures that show dimensional collapse of features.

=======================  ==========================================  =======
figure                   healthy features of D channels              collapse
=======================  ==========================================  =======
``effective_rank``       a large share of D; D for equal variances   1
``rankme``               a large share of min(N, D)                  1
``alpha_req``            near 1                                      far
                                                                     above 1
``std_of_l2_normalized`` 1 / sqrt(D)                                 0
``lidar``                a large share of min(N - 1, D)              1
=======================  ==========================================  =======

All but ``lidar``, which takes several views of each image, take features as
``(N, D)`` or as maps ``(N, D, H, W)``, whose positions then count as samples. They
compute without gradient and without autocast in float64 by default, and work on the
smaller of the channel and the sample products. Features without any variance have
rank 0 and no slope (nan).
"""

import math

import torch
from torch import Tensor


@torch.no_grad()
def covariance_eigenvalues(
    features: Tensor,
    normalize: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Eigenvalues of the covariance of the features, largest first.

    The spectrum whose fall `Understanding Dimensional Collapse in Contrastive
    Self-supervised Learning <https://arxiv.org/abs/2110.09348>`_ shows. Its
    sum is the total variance (divided by the number of samples).

    Args:
        features (Tensor): Features of a set of samples.
        normalize (bool): Scale each sample to unit length first, as in that
            work. Defaults to False.
        dtype (torch.dtype): Precision of the computation; float32 resolves
            eigenvalues down to about 1e-6 of the largest. Defaults to
            float64.

    Shape: ``(N, D)`` or ``(N, D, H, W)`` -> ``(D,)``; zeros where there are
        fewer samples than channels.

    Raises:
        ValueError: Fewer than 2 samples, or values that are not finite.
    """
    rows = _rows(features, dtype)
    if normalize:
        rows = torch.nn.functional.normalize(rows, dim=1)
    mean = rows.mean(0)
    rows = rows - mean
    values = _squared_singular_values(rows) / len(rows)
    # What is left of a constant after subtracting its rounded mean.
    noise = (16 * torch.finfo(dtype).eps) ** 2 * mean.square().sum()
    values = torch.where(values.sum() > noise, values, 0.0)
    return torch.nn.functional.pad(values, (0, rows.shape[1] - len(values)))


@torch.no_grad()
def effective_rank(features: Tensor) -> Tensor:
    """Exponential of the entropy of the covariance spectrum.

    ``exp(-sum p log p)`` with ``p`` the eigenvalues over their sum; `The
    Effective Rank <https://ieeexplore.ieee.org/document/7098875>`_ of Roy and
    Vetterli, of the covariance matrix. Between 1 (one direction) and D (equal
    variance everywhere); rotation and scale do not matter.

    Args:
        features (Tensor): Features, or their ``covariance_eigenvalues``.

    Shape: ``(N, D)``, ``(N, D, H, W)`` or ``(D,)`` -> scalar; 0 for features
        without variance.
    """
    return _entropy_rank(_eigenvalues(features))


@torch.no_grad()
def rankme(
    features: Tensor, eps: float = 1e-7, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Exponential of the entropy of the singular values of the features.

    `RankMe <https://arxiv.org/abs/2210.02885>`_, eq. (1): like
    ``effective_rank`` but of the singular values and without centring, so
    that a common offset counts as one direction. Compare runs of one method
    on the same samples only; the authors use 25600 of them.

    Args:
        features (Tensor): Features of a set of samples.
        eps (float): Added to each share of the sum. Defaults to 1e-7.
        dtype (torch.dtype): Precision of the computation. Defaults to
            float64.

    Shape: ``(N, D)`` or ``(N, D, H, W)`` -> scalar between 1 and
        ``min(N, D)`` (to eps); 0 when all features are zero.
    """
    rows = _rows(features, dtype)
    return _entropy_rank(_squared_singular_values(rows).sqrt(), eps)


@torch.no_grad()
def alpha_req(features: Tensor, fit_range: tuple[int, int] = (3, 100)) -> Tensor:
    """Slope of the power law that the covariance spectrum follows.

    ``alpha`` of ``eigenvalue_i ~ i^(-alpha)``, `alpha-ReQ
    <https://openreview.net/forum?id=ii9X4vtZGTZ>`_: least squares in
    log-log coordinates, weighted by 1 / i so that each octave counts alike.
    Features near 1 transfer best; 0 is a flat spectrum (noise or whitened
    features), far above 1 a collapse.

    Args:
        features (Tensor): Features, or their ``covariance_eigenvalues``.
        fit_range (tuple[int, int]): First and last eigenvalue of the fit,
            counted from 1; cut where the numerical rank ends. Defaults to
            (3, 100).

    Shape: ``(N, D)``, ``(N, D, H, W)`` or ``(D,)`` -> scalar; nan when fewer
        than 2 eigenvalues above rounding are within the range.
    """
    first, last = fit_range
    if not 1 <= first < last:
        raise ValueError(
            f'fit_range must be (first, last) with 1 <= first < last, got {fit_range}.'
        )
    values = _eigenvalues(features)
    floor = values.amax() * len(values) * torch.finfo(values.dtype).eps
    last = min(last, int((values > floor).sum()))
    if last <= first:
        return values.new_tensor(math.nan)
    index = torch.arange(first, last + 1, dtype=values.dtype, device=values.device)
    weight = 1 / index / (1 / index).sum()
    x, y = index.log(), values[first - 1 : last].log()
    x = x - (weight * x).sum()
    y = y - (weight * y).sum()
    return -(weight * x * y).sum() / (weight * x * x).sum()


@torch.no_grad()
def lidar(
    views: Tensor,
    ridge: float = 1e-4,
    eps: float = 1e-7,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Effective rank of what tells images apart, beyond what their views differ in.

    `LiDAR <https://arxiv.org/abs/2312.04000>`_, section 3: the entropy rank of
    ``W^(-1/2) B W^(-1/2)`` with ``B`` the covariance of the images' mean features and
    ``W`` that of the views of one image, as in linear discriminant analysis with every
    image a class. Directions of augmentation alone do not count, unlike in
    ``rankme``. Compare runs on the same views only; the authors use 1000 images and
    50 views of each.

    Args:
        views (Tensor): Features of several views of each image.
        ridge (float): Added to the diagonal of ``W``. Defaults to 1e-4.
        eps (float): Added to each share of the sum. Defaults to 1e-7.
        dtype (torch.dtype): Precision of the computation. Defaults to float64.

    Shape: ``(N, Q, D)``, Q views -> scalar between 1 and ``min(N - 1, D)`` (to eps); 0
        when the images do not differ.

    Raises:
        ValueError: Fewer than 2 images or views, or values that are not finite.
    """
    if views.ndim != 3 or min(views.shape[:2]) < 2:
        raise ValueError(
            'LiDAR takes features (N, Q, D) of 2 images and 2 views or more, got '
            f'{tuple(views.shape)}.'
        )
    images, number, size = views.shape
    rows = _rows(views.flatten(0, 1), dtype).view(images, number, size)
    means = rows.mean(1, keepdim=True)
    between = _squared(means[:, 0] - means.mean(0)) / images
    within = _squared((rows - means).flatten(0, 1)) / (images * number)
    values, vectors = torch.linalg.eigh(within)
    # Rounding may leave a value a little below 0.
    scale = (values.clamp_min(0) + ridge).rsqrt()
    whitened = scale[:, None] * (vectors.mT @ between @ vectors) * scale
    spread = torch.linalg.eigvalsh(whitened).clamp_min(0)
    return _entropy_rank(spread, eps)


def _squared(rows: Tensor) -> Tensor:
    with torch.autocast(rows.device.type, enabled=False):
        return rows.mT @ rows


@torch.no_grad()
def std_of_l2_normalized(
    features: Tensor, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Mean over the channels of the spread of unit-length features.

    `Exploring Simple Siamese Representation Learning
    <https://arxiv.org/abs/2011.10566>`_, fig. 2: ``1 / sqrt(D)`` for features
    spread evenly over the sphere, 0 when all samples agree. It does not see
    a dimensional collapse that leaves some directions alive.

    Args:
        features (Tensor): Features of a set of samples.
        dtype (torch.dtype): Precision of the computation. Defaults to
            float64.

    Shape: ``(N, D)`` or ``(N, D, H, W)`` -> scalar.
    """
    rows = _rows(features, dtype)
    rows = torch.nn.functional.normalize(rows, dim=1)
    return rows.std(0, correction=0).mean()


def _eigenvalues(features: Tensor) -> Tensor:
    """Eigenvalues as they are, or those of features."""
    if features.ndim == 1:
        return features.clamp_min(0)
    return covariance_eigenvalues(features)


def _entropy_rank(values: Tensor, eps: float = 0.0) -> Tensor:
    total = values.sum()
    share = values / total + eps
    rank = torch.special.entr(share).sum().exp()
    return torch.where(total > 0, rank, 0.0)


def _squared_singular_values(rows: Tensor) -> Tensor:
    """Of ``(N, D)``, largest first, by the smaller of the two Gram matrices.

    Exact to the machine epsilon relative to the largest, which is why
    float64 is the default.
    """
    tall = rows.shape[0] >= rows.shape[1]
    with torch.autocast(rows.device.type, enabled=False):
        gram = rows.T @ rows if tall else rows @ rows.T
    return torch.linalg.eigvalsh(gram).clamp_min(0).flip(0)


def _rows(features: Tensor, dtype: torch.dtype) -> Tensor:
    if features.ndim not in (2, 4):
        raise ValueError(
            f'features must be (N, D) or (N, D, H, W), got {tuple(features.shape)}.'
        )
    if features.ndim == 4:
        features = features.permute(0, 2, 3, 1).flatten(0, 2)
    if len(features) < 2:
        raise ValueError(
            'a spectrum takes 2 samples or more, got features of '
            f'{tuple(features.shape)}.'
        )
    finite = features.isfinite()
    if not finite.all():
        raise ValueError(
            f'{int((~finite).sum())} of {features.numel()} feature values '
            'are not finite; the encoder has diverged, or the precision of '
            'its computation is too low.'
        )
    return features.to(dtype)
