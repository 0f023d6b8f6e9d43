"""One DICOM file: its header, and its pixels as they are stored."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from medssl_mm.importers.base import CaseError

# Functional groups, in which files of many frames state what is true of each.
GROUPS = ('SharedFunctionalGroupsSequence', 'PerFrameFunctionalGroupsSequence')
# Syntaxes in which the pixels are stored as they are.
_PLAIN = (
    pydicom.uid.ImplicitVRLittleEndian,
    pydicom.uid.ExplicitVRLittleEndian,
    pydicom.uid.ExplicitVRBigEndian,
    pydicom.uid.DeflatedExplicitVRLittleEndian,
)
_PREAMBLE = 128  # bytes before the mark
_DECODERS = 'pip install pylibjpeg pylibjpeg-openjpeg pylibjpeg-libjpeg'
# What pydicom says where no decoder is installed.
_NO_DECODER = (
    'missing dependencies',
    'plugins are available',
    'no available',
    'NumPy is required',
    'requires',
)


def read_tags(path: str | Path, tags: Sequence[str | int]) -> Any:
    """Read some tags of a DICOM file; None when it is none.

    Files without preamble, or without its mark (old scanners, some exports), are
    read where their first bytes are those of a DICOM data set.
    """
    try:
        return _read(
            path,
            stop_before_pixels=True,
            specific_tags=[pydicom.tag.Tag(tag) for tag in tags],
        )
    except Exception:  # whatever a file of another kind provokes
        return None


def _read(path: str | Path, **settings: Any) -> Any:
    """Read by pydicom, from where the data set begins."""
    with open(path, 'rb') as file:
        start = file.read(_PREAMBLE + 4 + 8)
    if start[_PREAMBLE : _PREAMBLE + 4] == b'DICM':
        return pydicom.dcmread(path, **settings)
    places = (0, _PREAMBLE, _PREAMBLE + 4)
    begin = next((at for at in places if _begins(start[at : at + 8])), None)
    if not begin:  # what is no data set is pydicom's to refuse
        return pydicom.dcmread(path, force=begin == 0, **settings)
    content = Path(path).read_bytes()[begin:]
    header = pydicom.dcmread(io.BytesIO(content), force=True, **settings)
    header.filename = str(path)
    return header


def _begins(element: bytes) -> bool:
    """Whether a data set begins so: a tag of group 2 or 8, and its VR or length."""
    if element[:2] == b'\x00\x08':  # big endian, which always states the VR
        return element[4:6].isupper()
    return element[:2] in (b'\x02\x00', b'\x08\x00') and (
        element[4:6].isupper() or element[6:8] == b'\0\0'
    )


def read_file(path: str) -> Any:
    """Read one file completely; the pixels stay encoded.

    Raises:
        CaseError: No DICOM file, or damaged.
    """
    try:
        header = _read(path)
    except Exception as error:
        raise CaseError(
            'unreadable',
            f'{path}: not a readable DICOM file ({type(error).__name__}: {error})',
        ) from None
    if 'TransferSyntaxUID' not in header.file_meta:
        implicit, little = header.original_encoding
        explicit = pydicom.uid.ExplicitVRLittleEndian
        if not little:
            explicit = pydicom.uid.ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = (
            pydicom.uid.ImplicitVRLittleEndian if implicit else explicit
        )
    return header


def number_of_frames(header: Any) -> int:
    """Frames that a file holds."""
    return int(header.get('NumberOfFrames', 1) or 1)


def frame_parts(header: Any) -> list[list[Any]]:
    """Where to look for the facts of every frame, the most special place first.

    Returns:
        list[list[Dataset]]: per frame the items of its own functional groups, of
        the shared ones, and the header; of a file of one slice the header alone.
    """
    groups = header.get(GROUPS[1])
    if groups is None:
        return [[header]]
    shared = [part for item in header.get(GROUPS[0]) or () for part in _items(item)]
    return [[*_items(group), *shared, header] for group in groups]


def _items(holder: Any) -> list[Any]:
    """Items of all sequences below a data set, the outer ones first."""
    outer = [
        item for element in holder if element.VR == 'SQ' for item in element.value or ()
    ]
    return [*outer, *(inner for item in outer for inner in _items(item))]


def stated(parts: Sequence[Any], key: str | int) -> Any:
    """The first value of a tag that is stated; None where none is."""
    for part in parts:
        found = part.get(key)
        if isinstance(key, int) and found is not None:
            found = found.value
        if found is not None and found != '':
            return found
    return None


def check_pixel_data(header: Any) -> None:
    """Refuse a file without an image.

    Raises:
        CaseError: It has no pixel data.
    """
    if 'PixelData' not in header:
        raise CaseError(
            'no-pixel-data',
            f'{header.filename}: the file has no pixel data; copy the '
            'series again or remove the file.',
        )


def is_padding(stored: np.ndarray, header: Any) -> np.ndarray:
    """Pixels that carry the declared padding value, or lie in its range.

    Some writers declare a negative value as if it were not: the bits count.

    Args:
        stored (np.ndarray): Stored values, as decoded.
        header (Dataset): Of their file.

    Returns:
        np.ndarray: bool, of the same shape.
    """
    value = header.get('PixelPaddingValue')
    if value in (None, ''):
        return np.zeros(stored.shape, bool)
    value = _as_stored(int(value), stored.dtype)
    limit = header.get('PixelPaddingRangeLimit')
    if limit in (None, ''):
        return stored == value
    low, high = sorted((value, _as_stored(int(limit), stored.dtype)))
    return (stored >= low) & (stored <= high)


def _as_stored(value: int, dtype: np.dtype) -> int:
    """A number as the type of the pixels has it."""
    bits = 8 * dtype.itemsize
    value %= 1 << bits
    return value - (1 << bits) if dtype.kind == 'i' and value >> (bits - 1) else value


def decode(header: Any) -> np.ndarray:
    """Decode the stored values of a file, of whatever transfer syntax.

    Raises:
        CaseError: No decoder is installed ('no-decoder'), the pixel data is damaged
            ('damaged-pixels'), or its bits are elsewhere ('bit-layout').
    """
    high, bits = (header.get(key) for key in ('HighBit', 'BitsStored'))
    plain = header.file_meta.get('TransferSyntaxUID') in _PLAIN
    if plain and None not in (high, bits) and high != bits - 1:
        raise CaseError(
            'bit-layout',
            f'{header.filename}: HighBit is {high}; expected {bits - 1}, one less than '
            f'BitsStored ({bits}): the values lie in other bits. Convert the series '
            'with a tool that shifts them (e.g. gdcmconv).',
        )
    try:
        return header.pixel_array
    except Exception as error:  # whatever a broken file provokes
        raise _decoding_error(header, error) from None


def _decoding_error(header: Any, error: Exception) -> CaseError:
    """Tell a missing decoder from damaged pixel data."""
    syntax = header.file_meta.get('TransferSyntaxUID')
    name = getattr(syntax, 'name', syntax)
    text = ' '.join(str(error).split())
    if isinstance(error, (NotImplementedError, ImportError)) or any(
        part in text for part in _NO_DECODER
    ):
        return CaseError(
            'no-decoder',
            f'{header.filename}: no decoder for {name}; '
            f'install one: {_DECODERS} ({text[:160]})',
        )
    return CaseError(
        'damaged-pixels',
        f'{header.filename}: the pixel data ({name}) cannot '
        f'be decoded: {text[:160]}. Copy the file again.',
    )
