"""Where a place of one view lies in its source image and in other views.

A view is described by one affine matrix ``(2, 3)`` that takes the index
``(x, y)`` of a view's pixel centre to the index of a source pixel centre.
Boxes ``(x0, y0, x1, y1)`` are in edge coordinates: pixel ``i`` covers
``[i, i + 1]``, so the whole image is ``(0, 0, width, height)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .precision import at_least_float32


def crop_matrix(
    box: Sequence[float],
    view_shape: tuple[int, int],
    flip: bool = False,
    rotation: float = 0.0,
) -> np.ndarray:
    """Matrix from view pixel centres to source pixel centres.

    The view shows the window ``box``, turned by ``rotation`` about its own
    centre, and is mirrored left-right last.

    Args:
        box: ``(x0, y0, x1, y1)`` in source pixels, edge coordinates.
        view_shape: ``(height, width)`` of the view in pixels.
        flip: Whether the view is mirrored left-right.
        rotation: Degrees by which the window is turned counter-clockwise as
            displayed (rows downwards).

    Returns:
        ``(2, 3)`` float64 array.
    """
    x0, y0, x1, y1 = box
    height, width = view_shape
    step_x = (x1 - x0) / width * (-1.0 if flip else 1.0)
    step_y = (y1 - y0) / height
    cos = math.cos(math.radians(rotation))
    sin = math.sin(math.radians(rotation))
    linear_xx, linear_xy = cos * step_x, sin * step_y
    linear_yx, linear_yy = -sin * step_x, cos * step_y
    # The window's centre maps to the view's centre; both sit half a pixel
    # away from the index grid.
    offset_x = (
        (x0 + x1) / 2 - 0.5 - linear_xx * (width - 1) / 2 - linear_xy * (height - 1) / 2
    )
    offset_y = (
        (y0 + y1) / 2 - 0.5 - linear_yx * (width - 1) / 2 - linear_yy * (height - 1) / 2
    )
    return np.array(
        [[linear_xx, linear_xy, offset_x], [linear_yx, linear_yy, offset_y]]
    )


def apply_affine(matrix: Tensor, points: Tensor) -> Tensor:
    """Map points by an affine matrix.

    Shape: matrix ``(..., 2, 3)``, points ``(..., P, 2)`` as (x, y). Returns
    ``(..., P, 2)``.
    """
    return points @ matrix[..., :2].mT + matrix[..., None, :, 2]


def invert_affine(matrix: Tensor) -> Tensor:
    """Inverse of an affine matrix.

    Shape: ``(..., 2, 3)``. Returns the same shape.
    """
    inverse = torch.linalg.inv(matrix[..., :2])
    return torch.cat([inverse, -inverse @ matrix[..., 2:]], dim=-1)


def cell_centres(
    view_shape: tuple[int, int],
    map_shape: tuple[int, int],
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Centres of a feature map's cells in pixels of its view.

    Args:
        view_shape: ``(height, width)`` of the view in pixels.
        map_shape: ``(height, width)`` of the feature map in cells.
        dtype: Type of the result.

    Shape: returns ``(map height * map width, 2)`` as (x, y), row by row.
    """
    rows = (torch.arange(map_shape[0], dtype=dtype) + 0.5) * (
        view_shape[0] / map_shape[0]
    ) - 0.5
    columns = (torch.arange(map_shape[1], dtype=dtype) + 0.5) * (
        view_shape[1] / map_shape[1]
    ) - 0.5
    grid_y, grid_x = torch.meshgrid(rows, columns, indexing='ij')
    return torch.stack([grid_x, grid_y], dim=-1).reshape(-1, 2)


def to_unit_range(points: Tensor, view_shape: tuple[int, int]) -> Tensor:
    """Turn view pixels into the -1 to 1 coordinates of ``grid_sample``.

    The result is meant for ``align_corners=False`` and holds for every
    feature map of the view, whatever its stride.

    Shape: points ``(..., 2)`` as (x, y) in view pixels. Returns the same
    shape.
    """
    size = points.new_tensor([view_shape[1], view_shape[0]])
    return (2 * points + 1) / size - 1


def inside_view(
    points: Tensor,
    view_shape: tuple[int, int],
    margin: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Whether view pixels lie within the view, half-pixel border included.

    Args:
        points: In pixels of the view, (x, y).
        view_shape: ``(height, width)`` of the view in pixels.
        margin: Pixels left out at every edge, (y, x).

    Shape: points ``(..., 2)``. Returns bool ``(...)``.
    """
    lengths = points.new_tensor([view_shape[1], view_shape[0]])
    border = points.new_tensor([margin[1], margin[0]])
    # Rounding must not lose a point of the very edge.
    reach = 1 - 2 * border / lengths + 1e-9
    return (to_unit_range(points, view_shape).abs() <= reach).all(dim=-1)


def view_box(
    matrix: Tensor,
    view_shape: tuple[int, int],
    margin: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Upright box around a view, in edge coordinates of its source.

    Args:
        matrix: From view pixels to source pixels.
        view_shape: ``(height, width)`` of the view in pixels.
        margin: Pixels of the view left out at every edge, (y, x).

    Shape: matrix ``(..., 2, 3)``. Returns ``(..., 4)`` as (x0, y0, x1, y1).
    """
    top, left = margin
    bottom, right = view_shape[0] - top, view_shape[1] - left
    corners = (
        matrix.new_tensor([[left, top], [right, top], [left, bottom], [right, bottom]])
        - 0.5
    )
    reached = apply_affine(matrix, corners) + 0.5
    return torch.cat([reached.amin(dim=-2), reached.amax(dim=-2)], dim=-1)


def overlap_points(
    matrices: Sequence[Tensor],
    view_shapes: Sequence[tuple[int, int]],
    positions: Tensor,
    margins: Sequence[tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0)),
) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """Points of the box that two views of one source have in common.

    The box is upright in the source. Of turned views it also has corners
    that are not in both: points there are marked.

    Args:
        matrices: Of both views, from view pixels to source pixels.
        view_shapes: ``(height, width)`` of both views in pixels.
        positions: Places in the box, (x, y), 0-1.
        margins: Pixels left out at every edge of either view, (y, x).

    Shape: matrices ``(N, 2, 3)``; positions ``(P, 2)`` or ``(N, P, 2)``.
        Returns the points in pixels of either view, each ``(N, P, 2)`` as
        (x, y); which of them lie in both views, ``(N, P)`` bool; and the
        common area over that of the smaller view, ``(N,)``, 0-1. With turned
        views the area is estimated from the share of points in both.
    """
    boxes = [view_box(*view) for view in zip(matrices, view_shapes, margins)]
    low = torch.maximum(boxes[0][:, :2], boxes[1][:, :2])
    size = torch.minimum(boxes[0][:, 2:], boxes[1][:, 2:]) - low
    size = size.clamp(min=0)
    source = low[:, None] + positions.to(low) * size[:, None] - 0.5
    points, areas = [], []
    inside = (size > 0).all(dim=-1, keepdim=True)
    for matrix, shape, margin in zip(matrices, view_shapes, margins):
        found = apply_affine(invert_affine(matrix), source)
        lengths = found.new_tensor([shape[1], shape[0]])
        border = found.new_tensor([margin[1], margin[0]])
        inside = inside & inside_view(found, shape, margin)
        points.append(found)
        areas.append(
            torch.linalg.det(matrix[:, :, :2]).abs() * (lengths - 2 * border).prod()
        )
    common = size.prod(dim=-1) * inside.to(size.dtype).mean(dim=-1)
    share = common / torch.minimum(*areas).clamp(min=1e-12)
    share = share.clamp(max=1)  # an estimate
    return (points[0], points[1]), inside, share


def source_centres(
    matrix: Tensor, view_shape: tuple[int, int], map_shape: tuple[int, int]
) -> Tensor:
    """Centres of a feature map's cells in pixels of the source image.

    Args:
        matrix: From view pixels to source pixels.
        view_shape: ``(height, width)`` of the view in pixels.
        map_shape: ``(height, width)`` of the feature map in cells.

    Shape: matrix ``(N, 2, 3)``. Returns ``(N, map height * map width, 2)``.
    """
    local = cell_centres(view_shape, map_shape, matrix.dtype)
    return apply_affine(matrix, local.to(matrix.device))


def take_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Take rows of every sample.

    Shape: ``(N, R, D)`` and ``(N, K)`` -> ``(N, K, D)``.
    """
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))


def mutual_nearest(distance: Tensor) -> tuple[Tensor, Tensor]:
    """Pair rows and columns that are nearest to each other.

    Shape: ``(N, R, S)``. Returns for every row its nearest column, ``(N,
    R)``, and whether the row is that column's nearest too, bool.
    """
    column = distance.argmin(dim=2)
    back = distance.argmin(dim=1).gather(1, column)
    rows = torch.arange(distance.shape[1], device=distance.device)
    return column, back == rows


def sample_map(level: Tensor, points: Tensor, view_shape: tuple[int, int]) -> Tensor:
    """Interpolate a feature map bilinearly at points of its view.

    Within half a cell of the edge, where there is nothing to interpolate
    with, the value of the edge is continued. Computed in float32 or better.

    Args:
        level: Feature map of the whole view, of any stride.
        points: In pixels of the view, (x, y).
        view_shape: ``(height, width)`` of the view in pixels.

    Shape: level ``(N, C, h, w)``; points ``(N, P, 2)``. Returns ``(N, C,
    P)``.
    """
    with torch.autocast(level.device.type, enabled=False):
        level = at_least_float32(level)
        grid = to_unit_range(points, view_shape).to(level.dtype)
        return F.grid_sample(
            level, grid[:, :, None], padding_mode='border', align_corners=False
        ).squeeze(3)


def patch_std(images: Tensor, map_shape: tuple[int, int]) -> Tensor:
    """Standard deviation of the grey values that every cell covers.

    Args:
        images: One or more channels; their variances are averaged.
        map_shape: ``(height, width)`` in cells.

    Shape: images ``(N, C, H, W)``. Returns ``(N, 1, h, w)``, float32 at
        least.
    """
    images = at_least_float32(images)
    # About the image's mean, or the difference of squares loses digits.
    images = images - images.mean(dim=(2, 3), keepdim=True)
    mean = F.adaptive_avg_pool2d(images, map_shape)
    square = F.adaptive_avg_pool2d(images.square(), map_shape)
    variance = (square - mean.square()).clamp(min=0)
    return variance.mean(dim=1, keepdim=True).sqrt()
