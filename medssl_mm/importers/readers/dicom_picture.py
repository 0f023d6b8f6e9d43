"""Radiographs and other single pictures in DICOM, as 8 bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi,
    apply_windowing,
)

from medssl_mm.importers.base import CaseError, Problem, warning
from medssl_mm.importers.readers.dicom_file import (
    check_pixel_data,
    decode,
    is_padding,
    number_of_frames,
    read_file,
)
from medssl_mm.importers.readers.picture import scale_to_bytes

# Which values become black and white: the smallest and largest of the picture,
# or those that the file's own window or lookup table names.
RANGE, VOI = 'range', 'voi'
WINDOWS = (RANGE, VOI)


def read_dicom_picture(
    path: str, window: str = RANGE
) -> tuple[np.ndarray, list[Problem]]:
    """Read the one picture of a DICOM file.

    Stored values are rescaled (or looked up), windowed, brought to 0-255 and,
    where MONOCHROME1 says that the smallest is white, inverted. Pixels that
    carry the declared padding value are black and do not count. A picture of
    one value is black.

    Args:
        path (str): The file.
        window (str): 'range': the smallest value of the picture becomes 0, the
            largest 255. 'voi': the window or lookup table of the file, the
            first of several; 'range' where it has none. Defaults to 'range'.

    Returns:
        tuple: uint8 ``(H, W)`` or ``(H, W, 3)`` (RGB); problems.

    Raises:
        CaseError: No readable DICOM file, several frames, or no decoder.
    """
    header = read_file(path)
    check_pixel_data(header)
    if number_of_frames(header) > 1:
        raise CaseError(
            'multi-frame',
            f'{path}: {number_of_frames(header)} frames in one file; expected one '
            'picture. Export the frames as files of their own.',
        )
    stored = decode(header)
    kind = str(header.get('PhotometricInterpretation', 'MONOCHROME2'))
    if not kind.startswith('MONOCHROME'):
        return _colours(header, stored, kind), []
    if stored.ndim != 2:
        raise CaseError(
            'not-grey',
            f'{path}: {kind}, but a pixel array of shape {stored.shape}; expected '
            '(rows, columns).',
        )
    return _grey(header, stored, window, kind == 'MONOCHROME1')


def _grey(
    header: Any, stored: np.ndarray, window: str, inverted: bool
) -> tuple[np.ndarray, list[Problem]]:
    values = apply_modality_lut(stored, header)
    shown = ~is_padding(stored, header)
    if not shown.any():
        return np.zeros(stored.shape, np.uint8), []
    problems: list[Problem] = []
    limits = None
    if window == VOI:
        values, limits = _windowed(header, values)
        if limits is None:
            problems.append(
                warning(
                    'no-window',
                    f'{header.filename}: the file names no window; its smallest and '
                    'largest value were taken.',
                )
            )
    if limits is None:
        limits = float(values[shown].min()), float(values[shown].max())
    low, high = limits
    pixels = scale_to_bytes(values, low, high)
    if inverted and high > low:
        pixels = 255 - pixels
    pixels[~shown] = 0
    return pixels, problems


def _windowed(
    header: Any, values: np.ndarray
) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Apply the file's window or lookup table.

    Returns:
        tuple: the values; what is black and what white afterwards, or None
        where the file has neither.
    """
    if header.get('VOILUTSequence'):
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
        table = apply_voi(np.rint(values).astype(np.int64), header)
        return table, (0.0, float(2**bits - 1))
    if header.get('WindowWidth') in (None, ''):
        return values, None
    try:
        with np.errstate(over='ignore'):  # of a sigmoid, far below its centre
            black, white = apply_windowing(np.array([-1e9, 1e9]), header)
            return apply_windowing(values, header), (float(black), float(white))
    except (ValueError, AttributeError, TypeError) as error:
        raise CaseError(
            'window',
            f'{header.filename}: its window cannot be used ({error}); import with '
            '--window range.',
        ) from None


def _colours(header: Any, stored: np.ndarray, kind: str) -> np.ndarray:
    """RGB of a colour picture; pydicom has turned YBR to RGB already."""
    if kind == 'PALETTE COLOR':
        stored = apply_color_lut(stored, header)
    if stored.ndim != 3 or stored.shape[2] < 3:
        raise CaseError(
            'colours',
            f'{header.filename}: {kind}, pixel array of shape {stored.shape}; '
            'expected a grey or an RGB picture. Convert the file to PNG.',
        )
    if stored.dtype != np.uint8:
        bits = 8 * stored.dtype.itemsize
        if kind != 'PALETTE COLOR':
            bits = int(header.BitsStored)
        stored = scale_to_bytes(stored, 0, 2**bits - 1)
    return np.ascontiguousarray(stored[..., :3])
