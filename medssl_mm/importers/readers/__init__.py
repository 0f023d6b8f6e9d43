"""Readers of file formats: arrays and geometry, no knowledge of data sets.

Volume readers return ``array, affine, problems``: the array ``(I, J, K)`` in
the axis order of ``affine``, stored values with their scale factors applied;
the affine ``(4, 4)`` from voxel index to world (RAS+ mm), or None where the
format holds no geometry (the array is then ``(X, Y, Z)``); the findings of the
header. They raise :class:`medssl_mm.importers.base.CaseError`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.importers.base import CaseError, LoadedCase, Problem
from medssl_mm.importers.readers.optional import check_installed
from medssl_mm.store.orientation import canonicalize

NIFTI = ('.nii.gz', '.nii')
# Suffix to reader; a further format is a row. Longer suffixes come first.
_READERS = {
    **dict.fromkeys(NIFTI, 'nifti:read_nifti'),
    **dict.fromkeys(
        ('.nrrd', '.nhdr', '.mha', '.mhd', '.tiff', '.tif'), 'simpleitk:read_simpleitk'
    ),
}
VOLUME_SUFFIXES = tuple(_READERS)


def suffix_of(name: str, suffixes: tuple[str, ...] = VOLUME_SUFFIXES) -> str:
    """The suffix of a volume file in lower case, '' where it has none."""
    lower = name.lower()
    return next((suffix for suffix in suffixes if lower.endswith(suffix)), '')


def read_volume(
    path: str | Path, channels: int = 1, numbers: bool = False
) -> tuple[np.ndarray, np.ndarray | None, list[Problem]]:
    """Read a volume file by the reader of its suffix.

    Args:
        path (str | Path): The file.
        channels (int): Length of the fourth axis that it must have (NIfTI
            only). Defaults to 1: none.
        numbers (bool): Whether it holds numbers of classes, which are as stored
            whatever black and white are (TIFF). Defaults to False.

    Returns:
        tuple: array ``(I, J, K)``, affine ``(4, 4)`` or None, problems.

    Raises:
        CaseError: Unknown suffix, unreadable file, or no grey volume.
    """
    suffix = suffix_of(Path(path).name)
    if not suffix:
        raise CaseError(
            'file-type',
            f'{path}: no volume format has this suffix; known are '
            f'{", ".join(VOLUME_SUFFIXES)}.',
        )
    if channels > 1 and suffix not in NIFTI:
        raise CaseError(
            '4d-image',
            f'{path}: channels in one file are read of NIfTI alone; give one file '
            'per channel.',
        )
    name, function = _READERS[suffix].split(':')
    module = importlib.import_module(f'{__name__}.{name}')
    more: dict[str, int] = dict(channels=channels) if channels > 1 else {}
    if numbers and function == 'read_simpleitk':
        more['numbers'] = True
    return getattr(module, function)(path, **more)


def load_volume(path: str | Path, numbers: bool = False) -> LoadedCase:
    """Read a volume file, or numbers of classes, and turn it to the canonical axes."""
    return to_canonical(path, *read_volume(path, numbers=numbers))


def to_canonical(
    path: str | Path,
    array: np.ndarray,
    affine: np.ndarray | None,
    problems: list[Problem],
) -> LoadedCase:
    """Turn what a volume reader returned to the canonical axes.

    Raises:
        CaseError: The affine is degenerate.
    """
    if affine is None:
        volume = np.ascontiguousarray(array.transpose(2, 1, 0))
        return LoadedCase(
            volume, source_shape=tuple(volume.shape), problems=list(problems)
        )
    try:
        volume, canonical, info = canonicalize(array, affine)
    except UserError as error:
        raise CaseError('affine', f'{path}: {error}') from None
    return LoadedCase(volume, affine=canonical, problems=list(problems), **info)


def source_files(path: str | Path) -> list[str]:
    """A volume file, and the files that its header points to."""
    if suffix_of(Path(path).name) in ('.mhd', '.nhdr'):
        from medssl_mm.importers.readers.simpleitk import data_files

        return [str(path), *data_files(path)]
    return [str(path)]


def check_reader(suffix: str) -> None:
    """Refuse a suffix whose reader lacks its library.

    Raises:
        InstallError: Names the extra to install.
    """
    if _READERS[suffix].startswith('simpleitk'):
        check_installed('SimpleITK')
