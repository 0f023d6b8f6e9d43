"""HDF5 files with the keys ``image`` and ``label``."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from medssl_mm.importers.base import CaseError
from medssl_mm.importers.readers.budget import check_claim, inflated_limit


def _array(path: str, found: Any) -> np.ndarray | None:
    """Read a data set, unless it claims more than it stores."""
    if not isinstance(found, h5py.Dataset):
        return None
    stored: int | None = found.id.get_storage_size()
    if found.is_virtual or found.external:
        stored = None  # in other files
    elif found.compression or found.chunks:
        stored = inflated_limit(stored) if stored else 0
    check_claim(path, found.shape or (), found.dtype.itemsize, stored)
    return np.asarray(found[()])


def read_hdf5(path: str, axes: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Read the keys ``image`` and ``label`` of one file.

    Args:
        path (str): The file; it holds no geometry.
        axes (int): 3 for volumes ``(Z, H, W)``, 2 for slices.

    Returns:
        tuple: image; label, None if the file has none.

    Raises:
        CaseError: Unreadable, no image, or shapes that do not agree.
    """
    try:
        with h5py.File(path, 'r') as file:
            keys = sorted(file)
            image, label = (_array(path, file.get(key)) for key in ('image', 'label'))
    except OSError as error:
        raise CaseError(
            'unreadable', f'{path}: not a readable HDF5 file ({error}); copy it again.'
        ) from None
    if image is None:
        raise CaseError('no-image', f'{path}: no key "image"; found {keys}.')
    if image.ndim != axes:
        raise CaseError(
            'not-a-volume' if axes == 3 else 'not-a-slice',
            f'{path}: image of shape {image.shape}; expected {axes} axes.',
        )
    if label is not None and label.shape != image.shape:
        raise CaseError(
            'shape-mismatch',
            f'{path}: image has shape {image.shape}, label '
            f'{label.shape}; they must be equal.',
        )
    return image, label
