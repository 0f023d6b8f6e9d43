"""Features of each pixel that are computed, not learned.

What a decoder can tell from position and from the grey values around a pixel
alone: the floor under every read-out of a network. All are at the resolution of
the image and scaled by rules that no data enters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .precision import at_least_float32

# Of a Gaussian, in standard deviations; what scipy.ndimage takes.
TRUNCATE = 4.0


def position_polynomials(height: int, width: int, degree: int) -> Tensor:
    """Polynomials of the position, by increasing degree.

    Products of Legendre polynomials of x and of y, -1 to 1 from the left edge
    of the image to the right one and from the top to the bottom, each of mean 0
    and variance 1 over the square; the constant is left out.

    Args:
        height (int): Of the image in pixels.
        width (int): Of the image in pixels.
        degree (int): Largest total degree.

    Shape: returns ``(count_polynomials(degree), height, width)``, float64.
    """
    rows, columns = (_legendre(size, degree) for size in (height, width))
    return torch.stack(
        [
            torch.outer(rows[total - along], columns[along])
            for total in range(1, degree + 1)
            for along in range(total + 1)
        ]
    )


def count_polynomials(degree: int) -> int:
    """How many there are up to a total degree, without the constant."""
    return (degree + 1) * (degree + 2) // 2 - 1


def _legendre(size: int, degree: int) -> list[Tensor]:
    """Normalised Legendre polynomials at the centres of pixels."""
    place = (torch.arange(size, dtype=torch.float64) + 0.5) * 2 / size - 1
    found = [torch.ones_like(place), place]
    for n in range(1, degree):
        found.append(((2 * n + 1) * place * found[n] - n * found[n - 1]) / (n + 1))
    return [math.sqrt(2 * n + 1) * value for n, value in enumerate(found)]


def gaussian_kernels(sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """A sampled Gaussian and its first and second derivative.

    As ``scipy.ndimage.gaussian_filter1d`` has them, for a correlation.

    Args:
        sigma (float): Standard deviation in pixels.

    Shape: returns three ``(2 r + 1,)``, float64, r = 4 sigma rounded.
    """
    radius = int(TRUNCATE * sigma + 0.5)
    place = torch.arange(-radius, radius + 1, dtype=torch.float64)
    smooth = torch.exp(-0.5 * place**2 / sigma**2)
    smooth = smooth / smooth.sum()
    # Mirrored, as a correlation takes them.
    return (
        smooth,
        smooth * place / sigma**2,
        smooth * (place**2 / sigma**4 - 1 / sigma**2),
    )


def scale_space(images: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Smoothed grey values, gradient magnitude and Laplacian of Gaussian.

    Derivatives are multiplied by sigma to the power of their order, which makes
    those of different scales comparable (`Feature Detection with Automatic
    Scale Selection <https://doi.org/10.1023/A:1008045108935>`_). Beyond its
    edge an image goes on with the value there.

    Args:
        images (Tensor): Each channel is filtered by itself.
        sigma (float): In pixels.

    Shape: images ``(N, C, H, W)``. Returns three of that shape, at least
        float32.
    """
    images = at_least_float32(images)
    smooth, first, second = gaussian_kernels(sigma)
    down = _correlate(images, (smooth, first, second), dim=2)
    level, along_x, along_xx = _correlate(down[0], (smooth, first, second), dim=3)
    (along_y,) = _correlate(down[1], (smooth,), dim=3)
    (along_yy,) = _correlate(down[2], (smooth,), dim=3)
    gradient = torch.hypot(along_x, along_y) * sigma
    return level, gradient, (along_xx + along_yy) * sigma**2


def _correlate(images: Tensor, kernels: Sequence[Tensor], dim: int) -> list[Tensor]:
    """Correlate along rows (``dim=3``) or columns with kernels of one length."""
    radius = len(kernels[0]) // 2
    n, c, h, w = images.shape
    weight = torch.stack(list(kernels)).to(images)
    if dim == 2:
        padding, weight = (0, 0, radius, radius), weight[:, None, :, None]
    else:
        padding, weight = (radius, radius, 0, 0), weight[:, None, None, :]
    padded = F.pad(images.reshape(n * c, 1, h, w), padding, mode='replicate')
    with torch.autocast(images.device.type, enabled=False):
        found = F.conv2d(padded, weight)
    return [part.reshape(n, c, h, w) for part in found.unbind(1)]


def handmade_features(images: Tensor, scales: Sequence[float], degree: int) -> Tensor:
    """All of them: position, grey value, and :func:`scale_space` of each scale.

    Args:
        images (Tensor): Of any number of channels.
        scales (Sequence[float]): Standard deviations in pixels.
        degree (int): Of the polynomials of the position.

    Shape: images ``(N, C, H, W)`` -> ``(N, D, H, W)``, at least float32, with D
        = ``count_polynomials(degree) + C * (1 + 3 * len(scales))``.
    """
    images = at_least_float32(images)
    n, _, h, w = images.shape
    place = position_polynomials(h, w, degree).to(images)
    found = [place.expand(n, -1, -1, -1), images]
    for sigma in scales:
        found += scale_space(images, sigma)
    return torch.cat(found, dim=1)
