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


def crop_matrix(box: Sequence[float],
                view_shape: tuple[int, int],
                flip: bool = False,
                rotation: float = 0.0) -> np.ndarray:
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
    offset_x = ((x0 + x1) / 2 - 0.5 - linear_xx * (width - 1) / 2 -
                linear_xy * (height - 1) / 2)
    offset_y = ((y0 + y1) / 2 - 0.5 - linear_yx * (width - 1) / 2 -
                linear_yy * (height - 1) / 2)
    return np.array([[linear_xx, linear_xy, offset_x],
                     [linear_yx, linear_yy, offset_y]])


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


def view_to_view(matrix_from: Tensor, matrix_to: Tensor) -> Tensor:
    """Matrix from pixels of one view to pixels of another view.

    Both views come from one source image; each matrix takes its view's
    pixels to source pixels.

    Shape: ``(..., 2, 3)`` each. Returns the same shape.
    """
    back = invert_affine(matrix_to)
    linear = back[..., :2] @ matrix_from[..., :2]
    offset = back[..., :2] @ matrix_from[..., 2:] + back[..., 2:]
    return torch.cat([linear, offset], dim=-1)


def cell_centres(view_shape: tuple[int, int],
                 map_shape: tuple[int, int],
                 dtype: torch.dtype = torch.float64) -> Tensor:
    """Centres of a feature map's cells in pixels of its view.

    Args:
        view_shape: ``(height, width)`` of the view in pixels.
        map_shape: ``(height, width)`` of the feature map in cells.
        dtype: Type of the result.

    Shape: returns ``(map height * map width, 2)`` as (x, y), row by row.
    """
    rows = (torch.arange(map_shape[0], dtype=dtype) +
            0.5) * (view_shape[0] / map_shape[0]) - 0.5
    columns = (torch.arange(map_shape[1], dtype=dtype) +
               0.5) * (view_shape[1] / map_shape[1]) - 0.5
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


def inside_view(points: Tensor, view_shape: tuple[int, int]) -> Tensor:
    """Whether view pixels lie within the view, half-pixel border included.

    Shape: points ``(..., 2)`` as (x, y) in view pixels. Returns bool
    ``(...)``.
    """
    return (to_unit_range(points, view_shape).abs() <= 1).all(dim=-1)
