"""Whitening of features: decorrelated channels with unit variance.

``whiten`` does everything at once, ``whiten_with_moments`` hands out the
moments for running averages as well. The parts are ``moments`` ->
``whitening_matrix`` -> ``apply_whitening``.

=================  =======================  ==============================
method             matrix                   cost beside the covariance
=================  =======================  ==============================
``zca``            ``S^(-1/2)``, exact      one eigen-decomposition
``newton_schulz``  ``S^(-1/2)``, converged  matrix products only
``cholesky``       ``L^(-1)``, ``S=LL^T``   the cheapest; channel order
                                            matters
``iternorm``       ``S^(-1/2)``, partial    5 fixed Newton steps
=================  =======================  ==============================

``S`` is the covariance plus ``eps`` times its mean eigenvalue on the
diagonal, so an eigenvalue ``l`` of the input comes out as
``l / (l + eps * mean eigenvalue)``.

Everything runs in float32 at least, with autocast switched off. The products
are as exact as the float32 matrix product of the device is: TF32, off by
default in PyTorch, must stay off for GPU results of float32 quality.
"""

import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .distributed import mean_with_grad
from .precision import at_least_float32

METHODS = ('zca', 'newton_schulz', 'cholesky', 'iternorm')

ITERNORM_STEPS = 5

# Largest squared step of the scaled Newton-Schulz iteration. The optimum of
# the first steps tends to 3, which would send the largest eigenvalue to
# almost zero, where rounding decides; 2.75 costs 4 % of the speed and keeps
# it above 0.2.
_MAX_SQUARED_STEP = 2.75


def whiten(
    x: Tensor,
    method: str = 'zca',
    num_groups: int = 1,
    eps: float = 1e-3,
    iterations: int | None = None,
    channel_order: Tensor | None = None,
) -> Tensor:
    """Whiten features with the statistics of the batch of all processes.

    ``y = W (x - mean)`` with ``W S W^T = I`` in each group of channels. ZCA
    as in `Decorrelated Batch Normalization
    <https://arxiv.org/abs/1804.08450>`_, Newton's iteration as in `Iterative
    Normalization <https://arxiv.org/abs/1904.03441>`_, Cholesky as in
    `Whitening for Self-Supervised Representation Learning
    <https://arxiv.org/abs/2007.06346>`_. Differs from them in the gradients
    (closed forms without eigenvalue gaps) and in the relative ``eps``.

    A group without any variance (a constant input) gives zeros and a zero
    gradient.

    Args:
        x (Tensor): Features; a map is whitened over batch and space.
        method (str): One of ``METHODS``. Defaults to 'zca'.
        num_groups (int): Number of channel groups whitened apart from each
            other. Defaults to 1.
        eps (float): Ridge as a share of the mean eigenvalue of a group.
            Defaults to 1e-3.
        iterations (int, optional): Newton steps of 'newton_schulz' and
            'iternorm'. Defaults to None: as many as convergence takes, and
            5 for 'iternorm'.
        channel_order (Tensor, optional): Permutation of the channels which
            is cut into groups; the output keeps the order of the input. See
            ``shuffled_channels``. Defaults to None: channels as they stand.

    Shape: ``(N, C)`` or ``(N, C, H, W)`` -> the same, float32 or float64.

    Raises:
        ValueError: Unknown method, or channels not divisible by groups, or
            an ``eps`` too small for 'cholesky'.
    """
    return whiten_with_moments(x, method, num_groups, eps, iterations, channel_order)[0]


def whiten_with_moments(
    x: Tensor,
    method: str = 'zca',
    num_groups: int = 1,
    eps: float = 1e-3,
    iterations: int | None = None,
    channel_order: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``whiten``, returning also the moments it used.

    For modules that keep running moments; cheaper than the three parts.

    Args:
        x (Tensor): As for ``whiten``.
        method (str): As for ``whiten``. Defaults to 'zca'.
        num_groups (int): As for ``whiten``. Defaults to 1.
        eps (float): As for ``whiten``. Defaults to 1e-3.
        iterations (int, optional): As for ``whiten``. Defaults to None.
        channel_order (Tensor, optional): As for ``whiten``. Defaults to
            None.

    Shape: whitened x, mean ``(G, C/G)``, covariance ``(G, C/G, C/G)``.
    """
    with _full_precision(x):
        rows = _to_groups(x, num_groups, channel_order)
        mean, covariance, centred = _moments(rows)
        matrix = whitening_matrix(covariance, method, eps, iterations)
        y = _from_groups(centred @ matrix.mT, x, channel_order)
        return y, mean, covariance


def moments(
    x: Tensor,
    num_groups: int = 1,
    channel_order: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of each channel group over all processes.

    The covariance is divided by the number of samples, not by one less. The
    gradient reaches the samples of every process.

    Args:
        x (Tensor): Features.
        num_groups (int): Number of channel groups. Defaults to 1.
        channel_order (Tensor, optional): Permutation of the channels before
            the grouping. Defaults to None.

    Shape: x ``(N, C)`` or ``(N, C, H, W)`` -> mean ``(G, C/G)`` and
        covariance ``(G, C/G, C/G)``.
    """
    with _full_precision(x):
        return _moments(_to_groups(x, num_groups, channel_order))[:2]


def whitening_matrix(
    covariance: Tensor,
    method: str = 'zca',
    eps: float = 1e-3,
    iterations: int | None = None,
) -> Tensor:
    """Matrices that whiten data of the given covariances.

    ``eps`` is never taken below the number of channels times the machine
    epsilon, which is what rounding of the covariance can hide
    (2e-4 for 2048 channels in float32); 'iternorm' inverts nothing and takes
    it as given. A covariance of zero gives a matrix of zeros.

    'newton_schulz' converges for certain in ``newton_schulz_iterations``
    steps, the default; its gradient is that of the converged matrix also
    when ``iterations`` asks for fewer, and then a warning says so.

    Args:
        covariance (Tensor): Symmetric, positive semi-definite.
        method (str): One of ``METHODS``. Defaults to 'zca'.
        eps (float): Ridge as a share of the mean eigenvalue. Defaults to
            1e-3.
        iterations (int, optional): Newton steps. Defaults to None.

    Shape: ``(G, d, d)`` -> ``(G, d, d)``.
    """
    _check_settings(method, eps, iterations)
    if covariance.ndim != 3 or covariance.shape[1] != covariance.shape[2]:
        raise ValueError(
            'covariance must be (groups, d, d), got '
            f'{tuple(covariance.shape)}; add the group axis with '
            'covariance[None].'
        )
    with _full_precision(covariance):
        covariance = at_least_float32(covariance)
        size = covariance.shape[-1]
        identity = torch.eye(size, dtype=covariance.dtype, device=covariance.device)
        # Unit mean eigenvalue: eps becomes relative and neither tiny nor
        # huge features can under- or overflow.
        scale = _trace(covariance) / size
        alive = scale > torch.finfo(covariance.dtype).tiny
        safe_scale = torch.where(alive, scale, 1.0)
        normalized = torch.where(alive, covariance / safe_scale, identity)
        if method != 'iternorm':
            eps = max(eps, size * torch.finfo(covariance.dtype).eps)
        if method == 'zca':
            matrix = _EigenInverseRoot.apply(normalized, eps)
        else:
            matrix = _inverse_root(normalized + eps * identity, method, eps, iterations)
        return torch.where(alive, matrix * safe_scale.rsqrt(), 0.0)


def _inverse_root(
    matrix: Tensor, method: str, eps: float, iterations: int | None
) -> Tensor:
    """Of a matrix that has its ridge, which 'zca' adds to the eigenvalues."""
    if method == 'cholesky':
        return _InverseCholeskyFactor.apply(matrix)
    if method == 'newton_schulz':
        return _NewtonSchulzInverseRoot.apply(matrix, eps, iterations)
    return _iternorm(matrix, iterations or ITERNORM_STEPS)


def apply_whitening(
    x: Tensor,
    mean: Tensor,
    matrix: Tensor,
    channel_order: Tensor | None = None,
) -> Tensor:
    """Centre features and multiply each channel group by its matrix.

    Args:
        x (Tensor): Features.
        mean (Tensor): Mean of each group, from ``moments``.
        matrix (Tensor): Matrix of each group, from ``whitening_matrix``.
        channel_order (Tensor, optional): The permutation ``moments`` was
            given. Defaults to None.

    Shape: x ``(N, C)`` or ``(N, C, H, W)``, mean ``(G, C/G)``, matrix
        ``(G, C/G, C/G)`` -> the shape of x.
    """
    with _full_precision(x):
        rows = _to_groups(x, len(mean), channel_order)
        centred = _centre(rows, mean.to(rows.dtype))
        return _from_groups(centred @ matrix.to(rows.dtype).mT, x, channel_order)


def dense_transform(
    mean: Tensor, matrix: Tensor, channel_order: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the 1x1 convolution equal to ``apply_whitening``.

    Args:
        mean (Tensor): Mean of each group.
        matrix (Tensor): Matrix of each group.
        channel_order (Tensor, optional): The permutation ``moments`` was
            given. Defaults to None.

    Shape: mean ``(G, d)``, matrix ``(G, d, d)`` -> weight ``(Gd, Gd)``
        (out, in) and bias ``(Gd,)``, channels in the order of the features.
    """
    weight = torch.block_diag(*matrix)
    bias = -torch.einsum('gij,gj->gi', matrix, mean).flatten()
    if channel_order is not None:
        inverse = torch.argsort(channel_order.to(weight.device))
        weight, bias = weight[inverse][:, inverse], bias[inverse]
    return weight, bias


def shuffled_channels(num_channels: int, seed: int) -> Tensor:
    """Permutation of the channels, the same for the same seed everywhere.

    Neighbouring channels then fall into different groups, as in `On Feature
    Decorrelation in Self-Supervised Learning
    <https://arxiv.org/abs/2105.00470>`_.

    Args:
        num_channels (int): Number of channels.
        seed (int): Seed of the permutation.

    Shape: ``(num_channels,)``, int64.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(num_channels, generator=generator)


def newton_schulz_iterations(
    num_channels: int, eps: float, dtype: torch.dtype = torch.float32
) -> int:
    """Steps after which 'newton_schulz' has converged, whatever the data.

    The ridge bounds the smallest eigenvalue from below and the trace bounds
    the largest from above, so the number follows from these alone and needs
    no look at the data (no wait for the GPU).

    Args:
        num_channels (int): Channels of a group.
        eps (float): Ridge as a share of the mean eigenvalue.
        dtype (torch.dtype): Precision of the computation. Defaults to
            float32.
    """
    return len(_step_lengths(num_channels, eps, dtype))


def whitening_residual(covariance: Tensor, matrix: Tensor, eps: float = 1e-3) -> Tensor:
    """How far the matrices are from whitening: largest ``|W S W^T - I|``.

    Tells whether an iteration converged: about 1e-5 in float32 for the exact
    methods, near 1 for the 5 steps of 'iternorm' on correlated features.

    Args:
        covariance (Tensor): The covariances that were whitened.
        matrix (Tensor): The result of ``whitening_matrix`` for them.
        eps (float): The ridge used there. Defaults to 1e-3.

    Shape: ``(G, d, d)`` twice -> ``(G,)``; 0 for a group without variance.
    """
    with _full_precision(covariance):
        size = covariance.shape[-1]
        identity = torch.eye(size, dtype=covariance.dtype, device=covariance.device)
        eps = max(eps, size * torch.finfo(covariance.dtype).eps)
        scale = _trace(covariance) / size
        ridged = covariance + eps * scale * identity
        residual = (matrix @ ridged @ matrix.mT - identity).abs()
        residual = residual.amax(dim=(-2, -1))
        return torch.where(scale.flatten() > 0, residual, 0.0)


class _Gram(torch.autograd.Function):
    """``X^T X`` whose gradient takes one product instead of two."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return rows.mT @ rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        with _full_precision(grad):
            return rows @ (grad + grad.mT)


class _EigenInverseRoot(torch.autograd.Function):
    """``(A + eps)^(-1/2)`` by eigen-decomposition, gradient in closed form.

    The derivative in the eigenbasis multiplies entry ij by the divided
    difference of ``l^(-1/2)``, which is ``-1 / (r_i r_j (r_i + r_j))`` with
    ``r = sqrt(l)``: finite for equal eigenvalues, unlike the gradient of the
    eigenvectors.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, eps: float) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        # Rounding may leave the null space slightly negative.
        roots = (values.clamp_min(0) + eps).sqrt()
        ctx.save_for_backward(roots, vectors)
        return (vectors / roots.unsqueeze(-2)) @ vectors.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        roots, vectors = ctx.saved_tensors
        with _full_precision(grad):
            rows, columns = roots.unsqueeze(-1), roots.unsqueeze(-2)
            factors = -1 / (rows * columns * (rows + columns))
            inner = vectors.mT @ _symmetric(grad) @ vectors
            return vectors @ (factors * inner) @ vectors.mT, None


class _InverseCholeskyFactor(torch.autograd.Function):
    """``L^(-1)`` of ``A = L L^T``; its gradient is three matrix products."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        factor, info = torch.linalg.cholesky_ex(matrix)
        if info.any():
            raise ValueError(
                'the covariance plus its ridge is not positive definite in '
                f'{matrix.dtype} (group {int(info.nonzero()[0])}): raise '
                'eps, or use float64 or the method zca. Features that are '
                'not finite end here as well.'
            )
        identity = torch.eye(
            matrix.shape[-1], dtype=matrix.dtype, device=matrix.device
        ).expand_as(factor)
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (inverse,) = ctx.saved_tensors
        with _full_precision(grad):
            # d(L^-1) = -phi(L^-1 dA L^-T) L^-1 with phi: lower triangle,
            # diagonal halved.
            inner = (grad @ inverse.mT).tril()
            inner.diagonal(dim1=-2, dim2=-1).mul_(0.5)
            return -_symmetric(inverse.mT @ inner @ inverse)


class _NewtonSchulzInverseRoot(torch.autograd.Function):
    """``A^(-1/2)`` by the coupled iteration; gradient by a Lyapunov solve.

    The uncoupled recursion in ``P^3 A`` amplifies rounding and diverges for
    ill-conditioned matrices; the coupled one does not. The steps are scaled
    by the bounds of the spectrum (Chen and Chow, 2014), which halves their
    number.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, eps: float, iterations: int | None) -> Tensor:
        size = matrix.shape[-1]
        steps = _step_lengths(size, eps, matrix.dtype)
        if iterations is not None and iterations < len(steps):
            warnings.warn(
                f'newton_schulz with iterations={iterations} need not have '
                f'converged for {size} channels at eps={eps:g}: '
                f'{len(steps)} are sure to. Check whitening_residual or '
                'leave iterations out.',
                stacklevel=4,
            )
        bound = _spectral_bound(matrix)
        root = matrix / bound
        inverse_root = None
        for step in steps[:iterations]:
            if inverse_root is None:  # the first factor is the identity
                factor = _newton_factor(root, step)
                inverse_root = step * factor
            else:
                factor = _newton_factor(inverse_root @ root, step)
                inverse_root = step * (factor @ inverse_root)
            root = step * (root @ factor)
        assert inverse_root is not None, 'there is one step at least'
        inverse_root = _symmetric(inverse_root) * bound.rsqrt()
        ctx.save_for_backward(matrix, inverse_root)
        ctx.steps = steps
        return inverse_root

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        matrix, inverse_root = ctx.saved_tensors
        with _full_precision(grad):
            # From W A W = I: dW R + R dW = -W dA W with the root R = A W,
            # whose condition is only the square root of that of A.
            scale = _spectral_bound(matrix).sqrt()
            root = _symmetric(matrix @ inverse_root) / scale
            solution = _solve_lyapunov(root, _symmetric(grad) / scale, ctx.steps)
            return -inverse_root @ solution @ inverse_root, None, None


def _solve_lyapunov(matrix: Tensor, target: Tensor, steps: Sequence[float]) -> Tensor:
    """Symmetric X with ``A X + X A = B`` by Newton's sign iteration.

    The sign of ``[[A, B], [0, -A]]`` is ``[[I, 2X], [0, -I]]``; only the
    upper blocks are iterated, and their symmetry saves a product.
    """
    for step in steps:
        product = matrix @ target
        target = step * (
            1.5 * target
            - 0.5 * step**2 * _symmetric(matrix @ (2 * product - product.mT))
        )
        factor = _newton_factor(matrix @ matrix, step)
        matrix = step * (matrix @ factor)
    return target / 2


def _newton_factor(square: Tensor, step: float) -> Tensor:
    """``(3 I - step^2 square) / 2``."""
    factor = square * (-0.5 * step**2)
    factor.diagonal(dim1=-2, dim2=-1).add_(1.5)
    return factor


def _step_lengths(size: int, eps: float, dtype: torch.dtype) -> tuple[float, ...]:
    """Scale factors of the Newton-Schulz steps down to rounding error.

    The square roots of the eigenvalues start in ``[lowest, 1]``; a step maps
    ``v`` to ``step v (3 - step^2 v^2) / 2``.
    """
    precision = torch.finfo(dtype).eps
    eps = max(eps, size * precision)
    lowest = math.sqrt(eps / (size * (1 + eps)))
    steps = []
    while 1 - lowest > 4 * precision:
        squared = min(3 / (1 + lowest + lowest**2), _MAX_SQUARED_STEP)
        step = math.sqrt(squared)
        steps.append(step)
        lowest = min(
            step * value * (3 - squared * value**2) / 2 for value in (lowest, 1.0)
        )
    return tuple(steps) or (1.0,)


def _spectral_bound(matrix: Tensor) -> Tensor:
    """Upper bound of the eigenvalues, ``(G, 1, 1)``: the best of three."""
    frobenius = torch.linalg.matrix_norm(matrix, keepdim=True)
    largest_row_sum = matrix.abs().sum(-1, keepdim=True).amax(-2, True)
    bound = torch.minimum(frobenius, largest_row_sum)
    return torch.minimum(bound, _trace(matrix))


def _iternorm(matrix: Tensor, iterations: int) -> Tensor:
    """``P_(k+1) = 1.5 P_k - 0.5 P_k^3 A / tr(A)``, then ``P / sqrt(tr A)``."""
    trace = _trace(matrix)
    normalized = matrix / trace
    # P_0 is the identity, so the first step needs no product.
    estimate = _newton_factor(normalized, 1.0)
    for _ in range(iterations - 1):
        cube = estimate @ estimate @ estimate
        estimate = 1.5 * estimate - 0.5 * (cube @ normalized)
    return estimate * trace.rsqrt()


def _moments(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, covariance over all processes and the centred rows."""
    groups, samples, size = rows.shape
    # The count travels with the sum: processes may hold unequal batches.
    total = mean_with_grad(
        torch.cat([rows.sum(1).flatten(), rows.new_full((1,), float(samples))])
    )
    count = total[-1].detach()
    mean = (total[:-1] / count).view(groups, size)
    centred = _centre(rows, mean)
    covariance = mean_with_grad(_Gram.apply(centred)) / count
    # What is left of a constant after subtracting its rounded mean is noise
    # that whitening would blow up to unit variance.
    rounding = (16 * torch.finfo(rows.dtype).eps) ** 2
    noise = rounding * mean.detach().square().mean(-1)[:, None, None]
    alive = _trace(covariance.detach()) / size > noise
    return mean, torch.where(alive, covariance, 0.0), centred


def _centre(rows: Tensor, mean: Tensor) -> Tensor:
    # Adding the negative mean spares the backward pass a negative of rows.
    return rows + (-mean).unsqueeze(1)


def _to_groups(x: Tensor, num_groups: int, channel_order: Tensor | None) -> Tensor:
    """``(N, C[, H, W])`` -> ``(G, samples, C/G)`` in float32 at least."""
    if x.ndim not in (2, 4):
        raise ValueError(
            f'features must be (N, C) or (N, C, H, W), got {tuple(x.shape)}.'
        )
    channels = x.shape[1]
    if num_groups < 1 or channels % num_groups:
        raise ValueError(
            f'num_groups={num_groups} does not divide the {channels} '
            'channels of the features; choose a divisor.'
        )
    rows = x.permute(0, 2, 3, 1).flatten(0, 2) if x.ndim == 4 else x
    if not len(rows):
        raise ValueError(f'there is nothing to whiten in features of {tuple(x.shape)}.')
    rows = at_least_float32(rows)
    if channel_order is not None:
        if channel_order.shape != (channels,):
            raise ValueError(
                f'channel_order must be a permutation of the {channels} '
                f'channels, got a tensor of {tuple(channel_order.shape)}.'
            )
        rows = rows[:, channel_order.to(x.device)]
    return rows.unflatten(1, (num_groups, -1)).transpose(0, 1)


def _from_groups(rows: Tensor, like: Tensor, channel_order: Tensor | None) -> Tensor:
    """Undo ``_to_groups``, in the memory layout of ``like``."""
    x = rows.transpose(0, 1).flatten(1)
    if channel_order is not None:
        x = x[:, torch.argsort(channel_order.to(x.device))]
    if like.ndim == 2:
        return x
    height, width = like.shape[2:]
    x = x.view(len(like), height, width, -1).permute(0, 3, 1, 2)
    if like.is_contiguous(memory_format=torch.channels_last):
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous()


def _check_settings(method: str, eps: float, iterations: int | None) -> None:
    if method not in METHODS:
        raise ValueError(
            f'unknown whitening method {method!r}; choose one of {", ".join(METHODS)}.'
        )
    if not eps >= 0:
        raise ValueError(f'eps must not be negative, got {eps}.')
    if iterations is None:
        return
    if method not in ('newton_schulz', 'iternorm'):
        raise ValueError(
            f'iterations={iterations} was given, but the method {method!r} '
            'does not iterate; leave iterations out.'
        )
    if iterations < 1:
        raise ValueError(f'iterations must be 1 or more, got {iterations}.')


def _full_precision(x: Tensor) -> AbstractContextManager:
    return torch.autocast(x.device.type, enabled=False)


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


def _trace(matrix: Tensor) -> Tensor:
    """Trace of each matrix, ``(G, 1, 1)``."""
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
