"""Distance of two feature maps on a grid of cells."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .precision import at_least_float32


def feature_mse(
    query: Tensor,
    key: Tensor,
    grid: int | Sequence[int] = 1,
    return_logs: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Mean squared difference of two maps, averaged over the cells of a grid.

    .. math:: \frac{1}{NCGG'} \lVert P(q) - P(k) \rVert^2

    with :math:`P` the adaptive average pooling to ``grid``; `Intermediate
    Layers Matter in Momentum Contrastive Self Supervised Learning
    <https://arxiv.org/abs/2110.14805>`_. The features are taken as they are,
    so smaller features give a smaller loss, and so do features that are
    alike for all images: ``relative`` and ``spread`` in the log values tell
    agreement from these. Cells are compared by their place in the
    view, whatever the views show there: the coarser the grid, the less it
    matters that views are cropped and turned differently.

    A side with fewer positions than the grid has cells keeps its positions:
    finer cells would only repeat some of them, not all equally often.

    Args:
        query (Tensor): Map that learns.
        key (Tensor): Map of the other view, the target: no gradient.
        grid (int | Sequence[int]): Cells per side, or ``(rows, columns)``; 1
            compares the means over all positions. Defaults to 1.
        return_logs (bool): Also return, without gradient, ``norm``, the mean
            Euclidean norm of a cell's features in the query; ``relative``,
            the mean squared difference over the mean square of the key: 0
            for equal maps, 1 for a query of zeros; and ``spread``, the
            standard deviation over the images of this process over the root
            mean square, of the query: 0 where all images have the same
            features. Defaults to False.

    Shape: ``(N, C, H, W)`` twice, the same N and C -> a scalar, float32 at
        least; the cells' means have the precision of the maps.

    Raises:
        ValueError: When the maps have other shapes or the grid no cell.
    """
    if query.ndim != 4 or key.ndim != 4 or query.shape[:2] != key.shape[:2]:
        raise ValueError(
            'query and key must be maps (N, C, H, W) of the same N and C, '
            f'got {tuple(query.shape)} and {tuple(key.shape)}'
        )
    cells = [
        min(sides)
        for sides in zip(cells_per_side(grid), query.shape[2:], key.shape[2:])
    ]
    with torch.autocast(query.device.type, enabled=False):
        query, key = (
            at_least_float32(_GridMean.apply(maps, cells))
            for maps in (query, key.detach())
        )
        loss = F.mse_loss(query, key)
        if not return_logs:
            return loss
        return loss, _log_values(loss.detach(), query.detach(), key)


def cells_per_side(grid: int | Sequence[int]) -> tuple[int, int]:
    """Return rows and columns of a grid.

    Args:
        grid (int | Sequence[int]): One number for both, or two.

    Raises:
        ValueError: When it is neither, or has no cell.
    """
    cells = tuple(grid) if isinstance(grid, Sequence) else (grid, grid)
    if len(cells) != 2 or not all(isinstance(side, int) and side > 0 for side in cells):
        raise ValueError(
            'grid must be a positive number of cells per side '
            f'or two of them, got {grid!r}'
        )
    return cells


class _GridMean(torch.autograd.Function):
    """``adaptive_avg_pool2d`` with a backward pass by matrix products.

    That of torch takes several times as long on a CPU, most of all for maps
    with the channels innermost: it was most of the cost of the loss.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, cells: tuple[int, int]) -> Tensor:
        ctx.sides = maps.shape[2:]
        ctx.dtype = maps.dtype
        ctx.channels_last = maps.is_contiguous(memory_format=torch.channels_last)
        return F.adaptive_avg_pool2d(maps, cells)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        rows, columns = (
            _positions_of_cells(side, number, grad.device)
            for side, number in zip(ctx.sides, grad.shape[2:])
        )
        grad = grad / (rows.sum(1)[:, None] * columns.sum(1))
        # 0 and 1 are exact in any precision.
        grad, rows, columns = (part.to(ctx.dtype) for part in (grad, rows, columns))
        if not ctx.channels_last:
            return rows.T @ grad @ columns, None
        height, width = ctx.sides
        samples, channels, *cells = grad.shape
        grad = grad.permute(0, 2, 3, 1).reshape(-1, cells[1], channels)
        grad = (columns.T @ grad).view(samples, cells[0], width * channels)
        grad = (rows.T @ grad).view(samples, height, width, channels)
        return grad.permute(0, 3, 1, 2), None


def _positions_of_cells(size: int, number: int, device: torch.device) -> Tensor:
    """Which positions belong to which cell, ``(number, size)``, 0 and 1.

    Neighbouring cells share a position if ``number`` does not divide
    ``size``.
    """
    cell = torch.arange(number, device=device)[:, None]
    position = torch.arange(size, device=device)
    start = cell * size // number
    end = ((cell + 1) * size + number - 1) // number
    return ((position >= start) & (position < end)).float()


def _log_values(loss: Tensor, query: Tensor, key: Tensor) -> dict[str, Tensor]:
    tiny = torch.finfo(loss.dtype).tiny
    square = query.square().mean()
    # What all images have in common; a variance takes far longer.
    common = query.mean(0).square().mean()
    return dict(
        norm=torch.linalg.vector_norm(query, dim=1).mean(),
        relative=loss / key.square().mean().clamp_min(tiny),
        spread=((square - common).clamp_min(0) / square.clamp_min(tiny)).sqrt(),
    )
