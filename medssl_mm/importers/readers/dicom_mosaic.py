"""Siemens mosaics: the slices of a volume side by side in one picture."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl_mm.importers.base import CaseError, Problem, warning

_CREATOR, _NUMBER_OF_TILES = 0x00190010, 0x0019100A


@dataclass(frozen=True)
class Mosaic:
    """How the slices lie in the picture and in the body.

    Args:
        count (int): Slices.
        across (int): Tiles in a row of the picture.
        size (tuple): Rows and columns of a slice.
        position (np.ndarray): First pixel of the first slice, mm (LPS).
        step (np.ndarray): From slice to slice, mm (LPS).
        problems (list[Problem]): What the header leaves open.
    """

    count: int
    across: int
    size: tuple[int, int]
    position: NDArray
    step: NDArray
    problems: list[Problem]

    def split(self, picture: NDArray) -> NDArray:
        """Cut a picture into slices. Returns ``(slices, rows, columns)``."""
        rows, columns = self.size
        tiles = picture.reshape(
            picture.shape[0] // rows, rows, self.across, columns
        ).transpose(0, 2, 1, 3)
        return tiles.reshape(-1, rows, columns)[: self.count]


def is_mosaic(header: Any) -> bool:
    """Whether a file says that it holds a mosaic: by its type, or its tiles."""
    if any(str(kind).upper() == 'MOSAIC' for kind in header.get('ImageType') or ()):
        return True
    creator = header.get(_CREATOR)
    siemens = creator is not None and creator.value == 'SIEMENS MR HEADER'
    return siemens and _count(header, {}) > 1


def read_mosaic(
    header: Any,
    spacing: NDArray,
    directions: NDArray,
    position: NDArray,
) -> Mosaic:
    """Find the slices of a mosaic.

    The stated position is that of a picture of the size of the mosaic around
    the centre of a slice, as `nibabel derives it
    <https://nipy.org/nibabel/dicom/dicom_mosaic.html>`_.

    Args:
        header (Dataset): Of the file.
        spacing (np.ndarray): Between rows, between columns, mm.
        directions (np.ndarray): ``(6,)``, along a row, down a column.
        position (np.ndarray): As stated, mm (LPS).

    Raises:
        CaseError: The number of slices is unknown or does not fit the size.
    """
    csa = _siemens_header(header)
    count = _count(header, csa)
    across = math.ceil(math.sqrt(count))
    rows, columns = int(header.Rows), int(header.Columns)
    if count < 1 or rows % across or columns % across:
        raise CaseError(
            'mosaic',
            f'{header.filename}: a mosaic (ImageType MOSAIC) of {rows} x {columns} '
            f'pixels and {count or "an unknown number of"} slices, which cannot be '
            'cut apart. Convert the series to NIfTI (e.g. with dcm2niix) and import '
            'that.',
        )
    size = rows // across, columns // across
    row, column = directions[:3], directions[3:]
    first = (
        position
        + row * spacing[1] * (columns - size[1]) / 2
        + column * spacing[0] * (rows - size[0]) / 2
    )
    problems: list[Problem] = []
    step = _normal(header, csa, directions, problems) * _step(header, problems)
    return Mosaic(count, across, size, first, step, problems)


def _siemens_header(header: Any) -> dict:
    """Siemens' own header (CSA), {} where there is none."""
    try:
        return _csareader().get_csa_header(header, 'image') or {}
    except Exception as error:  # whatever a broken private header provokes
        raise CaseError(
            'mosaic',
            f'{header.filename}: the private header of this mosaic cannot be read '
            f'({type(error).__name__}: {error}). Convert the series to NIfTI (e.g. '
            'with dcm2niix) and import that.',
        ) from None


def _csareader() -> ModuleType:
    """Import nibabel's reader, which warns whoever does."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        from nibabel.nicom import csareader
    return csareader


def _count(header: Any, csa: dict) -> int:
    found = header.get(_NUMBER_OF_TILES)
    value = None if found is None else found.value
    if isinstance(value, bytes):  # of a private tag without type: 16 bit
        value = int.from_bytes(value[:2], 'little')
    return int(value or (csa and _csareader().get_n_mosaic(csa)) or 0)


def _normal(
    header: Any, csa: dict, directions: NDArray, problems: list[Problem]
) -> NDArray:
    """Direction from slice to slice; its sign stands in the private header."""
    usual = np.cross(directions[:3], directions[3:])
    told = _csareader().get_slice_normal(csa) if csa else None
    if told is None:
        problems.append(
            warning(
                'mosaic',
                f'{header.filename}: the header of this mosaic does not say in which '
                'direction its slices follow each other; it is taken as the normal '
                f'{np.round(usual, 3).tolist()} of rows and columns.',
            )
        )
        return usual
    return usual * np.sign(np.dot(told, usual))


def _step(header: Any, problems: list[Problem]) -> float:
    step = header.get('SpacingBetweenSlices')
    if step:
        return abs(float(step))
    thick = float(header.get('SliceThickness') or 0)
    if not thick:
        raise CaseError(
            'no-geometry',
            f'{header.filename}: a mosaic without SpacingBetweenSlices and '
            'SliceThickness; the place of its slices is unknown. Convert the series '
            'to NIfTI with a tool that knows its scanner.',
        )
    problems.append(
        warning(
            'mosaic',
            f'{header.filename}: SpacingBetweenSlices is missing; the slices of this '
            f'mosaic are taken to lie {thick:g} mm apart (SliceThickness).',
        )
    )
    return thick
