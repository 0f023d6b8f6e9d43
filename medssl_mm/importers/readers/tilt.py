"""Volumes of a tilted gantry, brought to a grid of right angles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medssl_mm.importers.base import LoadedCase, warning
from medssl_mm.store.orientation import canonicalize, shear_of


def straighten(loaded: LoadedCase, step: NDArray[np.float64]) -> None:
    """Move the slices of a sheared volume to where they are in the body.

    Each slice is shifted in its own plane: the image by linear interpolation,
    the label to the nearest voxel. The grid grows so that nothing is cut off;
    its corners get the smallest value of the image, and the background.

    Args:
        loaded (LoadedCase): Changed in place; its grid is its source from now on.
        step (np.ndarray): ``(3,)``, from slice to slice, mm (RAS).
    """
    affine = np.asarray(loaded.affine, np.float64)
    angle = shear_of(affine)
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    axis = int(np.argmax(np.abs(step @ affine[:3, :3] / edges)))
    one, two = (index for index in range(3) if index != axis)
    count = loaded.image.shape[2 - axis]
    shifts = [
        affine[:3, axis] @ affine[:3, index] / edges[index] ** 2 for index in (one, two)
    ]
    low = [int(np.floor(min(0.0, shift * (count - 1)))) for shift in shifts]
    high = [int(np.ceil(max(0.0, shift * (count - 1)))) for shift in shifts]
    straight = affine.copy()
    for index, shift, first in zip((one, two), shifts, low):
        straight[:3, axis] -= shift * affine[:3, index]
        straight[:3, 3] += first * affine[:3, index]

    def moved(volume: NDArray, order: int, fill: float) -> NDArray:
        slices = np.moveaxis(volume.transpose(2, 1, 0), axis, 0)
        shape = [
            size + last - first
            for size, first, last in zip(slices.shape[1:], low, high)
        ]
        new = np.empty((count, *shape), volume.dtype)
        for number, pixels in enumerate(slices):
            offset = [first - number * s for first, s in zip(low, shifts)]
            found = ndimage.affine_transform(
                pixels.astype(np.float32) if order else pixels,
                np.ones(2),
                offset,
                tuple(shape),
                order=order,
                mode='grid-constant',
                cval=fill,
            )
            whole = order and volume.dtype.kind in 'iu'
            new[number] = np.rint(found) if whole else found
        return np.moveaxis(new, 0, axis)

    before = loaded.image.shape
    if loaded.label is not None:
        label, _, _ = canonicalize(moved(loaded.label, 0, 0), straight)
        loaded.label = label
    loaded.image, loaded.affine, facts = canonicalize(
        moved(loaded.image, 1, float(loaded.image.min())), straight
    )
    for name, value in facts.items():
        setattr(loaded, name, value)
    loaded.problems.append(
        warning(
            'tilt-resampled',
            f'the slices were shifted in their planes to take out a gantry tilt of '
            f'{angle:.1f} degrees; {before} voxels became {loaded.image.shape}',
        )
    )
