"""Canonical orientation: axis permutations and flips, never resampling.

Canonical axis codes are L, P, S: x grows to the patient's left, y to
posterior, z to superior. A volume is stored as ``(Z, Y, X)``, so a slice
shown with row 0 on top is the usual radiological picture: anterior up, the
patient's right on the left side.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medssl_mm.errors import UserError

CANONICAL = ('L', 'P', 'S')


def _nibabel() -> ModuleType:
    """Import nibabel on first use: it takes a quarter of a second."""
    from nibabel import orientations

    return orientations


def orientation_of(affine: ArrayLike) -> np.ndarray:
    """Find the closest signed axis permutation of an affine.

    Raises:
        UserError: When the affine is not a finite invertible 4x4 matrix.

    Shape: affine ``(4, 4)``. Returns ``(3, 2)``: per source axis the world
    axis (0-2) and the direction (1 or -1), as nibabel has it.
    """
    affine = np.asarray(affine, np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise UserError(f'affine must be a finite 4x4 matrix, got {affine.tolist()}')
    if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise UserError(
            'affine is not invertible (an axis has no length): '
            f'{affine[:3, :3].tolist()}'
        )
    return _nibabel().io_orientation(affine)


def axis_codes(affine: ArrayLike) -> str:
    """Name the orientation of an affine, e.g. 'RAS'."""
    return ''.join(_nibabel().ornt2axcodes(orientation_of(affine)))


def spacing_of(affine: ArrayLike) -> tuple[float, float, float]:
    """Voxel size along the array axes of an affine, mm."""
    columns = np.asarray(affine, np.float64)[:3, :3]
    x, y, z = np.sqrt((columns**2).sum(0)).tolist()
    return x, y, z


def corner_shift(shape: Sequence[int], one: ArrayLike, other: ArrayLike) -> float:
    """Largest distance of the corners of a grid under two affines, mm.

    Shape: one, other ``(4, 4)``, of the voxel index in the order of ``shape``.
    """
    ends = np.meshgrid(*((0, size - 1) for size in shape[:3]), indexing='ij')
    corners = np.stack([*ends, np.ones_like(ends[0])], -1).reshape(-1, 4)
    difference = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    return float(np.linalg.norm((corners @ difference.T)[:, :3], axis=1).max())


def shear_of(affine: ArrayLike) -> float:
    """Greatest angle by which grid axes are off the right angle, degrees."""
    axes = np.asarray(affine, np.float64)[:3, :3] / np.array(spacing_of(affine))
    skew = float(np.abs(axes.T @ axes - np.eye(3)).max())
    return float(np.degrees(np.arcsin(min(1.0, skew))))


def _to_canonical(affine: ArrayLike) -> np.ndarray:
    return _nibabel().ornt_transform(
        orientation_of(affine), _nibabel().axcodes2ornt(CANONICAL)
    )


def canonicalize(
    array: np.ndarray, affine: ArrayLike
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Turn a volume on its source grid into the canonical orientation.

    Oblique grids go to the closest axis permutation; the affine keeps the
    tilt, no value is interpolated.

    Args:
        array: ``(I, J, K)`` in the axis order of ``affine``.
        affine: 4x4, source voxel index to world (RAS+ mm).

    Returns:
        tuple: array ``(Z, Y, X)``; canonical affine ``(4, 4)`` of the voxel
        index (x, y, z); dict with ``spacing`` (z, y, x) in mm,
        ``source_affine``, ``source_shape`` and ``source_orientation``.

    Raises:
        UserError: When the array is not 3-D or the affine is degenerate.
    """
    array = np.asarray(array)
    if array.ndim != 3:
        raise UserError(f'expected a 3-D volume, got shape {array.shape}')
    affine = np.asarray(affine, np.float64)
    change = _to_canonical(affine)
    canonical = _nibabel().apply_orientation(array, change)
    canonical_affine = affine @ _nibabel().inv_ornt_aff(change, array.shape)
    info = dict(
        spacing=spacing_of(canonical_affine)[::-1],
        source_affine=affine,
        source_shape=tuple(array.shape),
        source_orientation=axis_codes(affine),
    )
    volume = np.ascontiguousarray(canonical.transpose(2, 1, 0))
    return volume, canonical_affine, info


def to_source_axes(volume_zyx: np.ndarray, source_affine: ArrayLike) -> np.ndarray:
    """Undo :func:`canonicalize` for a volume of the same grid.

    Shape: volume_zyx ``(Z, Y, X)``. Returns ``(I, J, K)`` in the axis order
    of ``source_affine``.
    """
    back = _nibabel().ornt_transform(
        _nibabel().axcodes2ornt(CANONICAL), orientation_of(source_affine)
    )
    array = np.asarray(volume_zyx).transpose(2, 1, 0)
    return np.ascontiguousarray(_nibabel().apply_orientation(array, back))
