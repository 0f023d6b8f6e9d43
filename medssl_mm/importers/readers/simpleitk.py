"""NRRD, MetaImage and TIFF volumes through SimpleITK.

What ITK accepts without a word is checked here: a compressed MetaImage whose
data is damaged, a TIFF file that lost its last pages, that is turned or where white
is zero, headers that state no orientation or other units than mm.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medssl_mm.importers.base import CaseError, Problem, warning
from medssl_mm.importers.readers.budget import (
    GZIP,
    ZLIB,
    check_claim,
    inflate,
    read_content,
)
from medssl_mm.importers.readers.optional import require
from medssl_mm.importers.readers.tiff import black_is_zero
from medssl_mm.tiff import Page, read_pages

_META, _TIFF = ('.mha', '.mhd'), ('.tif', '.tiff')
_IN_MM = {
    'mm': 1.0, 'cm': 10.0, 'm': 1000.0, 'um': 1e-3, 'μm': 1e-3, 'µm': 1e-3,
    'micron': 1e-3, 'microns': 1e-3,
}  # fmt: skip
_HEADER_BYTES = 1 << 20  # longer headers are none


def read_simpleitk(
    path: str | Path, numbers: bool = False
) -> tuple[np.ndarray, np.ndarray | None, list[Problem]]:
    """Read a volume of one of the formats that ITK knows and we take.

    Args:
        path (str | Path): ``.nrrd``, ``.nhdr``, ``.mha``, ``.mhd``, ``.tif``
            or ``.tiff``. The pages of a TIFF file are slices; it holds no
            geometry.
        numbers (bool): Whether the values are numbers of classes: as they are
            stored, also where white is zero. Defaults to False.

    Returns:
        tuple: array ``(I, J, K)``; affine ``(4, 4)``, voxel to RAS+ world in
        mm (ITK's own world is LPS), or None for TIFF; list[Problem].

    Raises:
        CaseError: Unreadable file, no 3-D grey volume, or one that is not upright.
        InstallError: SimpleITK is not installed.
    """
    sitk = require('SimpleITK')
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise CaseError('missing', f'{path} does not exist.')
    pages: list[Page] = []
    try:
        claimed = _claim(sitk, path, suffix)
        if suffix in _TIFF:
            pages = list(read_pages(read_content(path)))
        else:
            _check_complete(path, claimed)
        image = sitk.ReadImage(str(path), imageIO=_driver(suffix))
    except CaseError:
        raise
    except (RuntimeError, OSError, ValueError, EOFError, zlib.error) as error:
        lines = str(error).strip().splitlines() or ['']
        raise CaseError(
            'unreadable',
            f'{path} cannot be read ({lines[-1].strip()[:160]}). It is truncated, '
            f'damaged or no {suffix} file; fetch it again.',
        ) from None
    problems = _turned(path, pages)
    array, matrix, origin = _grey_volume(sitk, image, path, suffix in _TIFF)
    if suffix in _TIFF:
        if not numbers:
            array, more = _as_shown(path, pages, array)
            problems += more
        return array, None, problems
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, origin
    affine[:2] *= -1
    factor, problems = _header_problems(path, suffix)
    affine[:3] *= factor
    return array, affine, problems


def _driver(suffix: str) -> str:
    """ITK's reader of a suffix; by itself it knows lower case only."""
    if suffix in _TIFF:
        return 'TIFFImageIO'
    return 'MetaImageIO' if suffix in _META else 'NrrdImageIO'


def _grey_volume(
    sitk: Any, image: Any, path: Path, pages: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Array, matrix of voxel steps and origin of an image of three axes."""
    if image.GetNumberOfComponentsPerPixel() > 1 or 'complex' in (
        image.GetPixelIDTypeAsString()
    ):
        raise CaseError(
            'not-a-volume',
            f'{path} holds colour or vector voxels '
            f'({image.GetPixelIDTypeAsString()}), expected grey values.',
        )
    size = list(image.GetSize())
    kept = len(size)
    while kept > 3 and size[kept - 1] == 1:
        kept -= 1
    if pages and kept == 2:  # one page
        image, kept, size = sitk.JoinSeries(image), 3, [*size, 1]
    if kept > 3:
        raise CaseError(
            '4d-image',
            f'{path} has {kept} axes of {size} voxels, expected 3. Split it into '
            'one file per volume.',
        )
    if kept < 3:
        raise CaseError(
            'not-a-volume',
            f'{path} has {kept} axes of {size} voxels, expected 3; a single slice '
            'needs a third axis of length 1.',
        )
    axes = image.GetDimension()
    direction = np.reshape(image.GetDirection(), (axes, axes))[:3, :3]
    matrix = direction * np.array(image.GetSpacing()[:3])
    array = sitk.GetArrayFromImage(image).reshape(size[2::-1])
    return array.transpose(2, 1, 0), matrix, np.array(image.GetOrigin()[:3])


def read_header(path: str | Path) -> tuple[dict[str, str], int]:
    """Read the text header of a NRRD or MetaImage file.

    Returns:
        tuple: values by key in lower case; length of the header, bytes. What
        follows a key that lists files is its value, one file a line.
    """
    path = Path(path)
    with open(path, 'rb') as file:
        content = file.read(_HEADER_BYTES)
    if path.suffix.lower() in _META:
        end = re.search(rb'(?im)^ElementDataFile\s*=\s*([^\r\n]*)\r?\n?', content)
        length = end.end() if end else len(content)
        if end and end[1].strip().upper() == b'LIST':
            length = len(content)
        separator = '='
    else:
        end = re.search(rb'\r?\n\r?\n', content)
        length = end.end() if end else len(content)
        separator = ':'
    fields: dict[str, str] = {}
    last = ''
    for line in content[:length].decode('utf-8', 'replace').splitlines():
        key, found, value = line.partition(separator)
        if found and not line.startswith('#'):
            last = key.strip().lower()
            # NRRD separates its free key/value pairs by ':='.
            fields[last] = value.lstrip('=').strip()
        elif last in ('elementdatafile', 'data file', 'datafile') and line.strip():
            fields[last] += f'\n{line.strip()}'
    return fields, length


def data_files(path: str | Path) -> list[str]:
    """Files that hold the voxels of a detached header (``.mhd``, ``.nhdr``)."""
    path = Path(path)
    try:
        fields, _ = read_header(path)
    except OSError:  # reported by the reader
        return []
    text = next(
        (
            fields[k]
            for k in ('elementdatafile', 'data file', 'datafile')
            if k in fields
        ),
        'LOCAL',
    )
    first, *listed = text.splitlines() or ['']
    words = first.split()
    if first.upper() == 'LOCAL' or not words:
        return []
    if words[0].upper() == 'LIST':
        names = listed
    elif '%' in words[0] and len(words) >= 3:
        low, high, *step = map(int, words[1:4])
        names = [words[0] % n for n in range(low, high + 1, *(step or [1]))]
    else:
        names = [first]
    return [str(path.parent / name) for name in names]


def _claim(sitk: Any, path: Path, suffix: str) -> int:
    """Bytes of the voxels by the header, which ITK would give memory to."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(_driver(suffix))
    reader.ReadImageInformation()
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())
    bits = re.search(r'(\d+)-bit', kind)
    width = (int(bits[1]) if bits else 64) // 8 * reader.GetNumberOfComponents()
    return check_claim(path, reader.GetSize(), width)


def _turned(path: Path, pages: Sequence[Page]) -> list[Problem]:
    """Tell pages of a TIFF file that are not stored as they are to be shown.

    ITK turns those alone whose first row is the lowest one.

    Raises:
        CaseError: 'not-upright': they are turned in another way, or not all alike.
    """
    found = sorted({page.orientation for page in pages} - {0}) or [1]
    if found == [1]:
        return []
    named = ', '.join(map(str, found))
    if found == [4]:
        return [
            warning('turned', f'{path}: turned as its header says (orientation 4).')
        ]
    raise CaseError(
        'not-upright',
        f'{path} says that its pages are to be turned (orientation {named}); read are '
        '1, or 4 for all of them. Save them upright (orientation 1).',
    )


def _as_shown(
    path: Path, pages: Sequence[Page], array: np.ndarray
) -> tuple[np.ndarray, list[Problem]]:
    """Make black zero; ITK has the values as they are stored.

    Raises:
        CaseError: Pages of both kinds, or values that cannot be turned.
    """
    white = sum(page.photometric == 0 for page in pages)
    if not white:
        return array, []
    if white < len(pages):
        raise CaseError(
            'white-is-zero',
            f'{path}: white is zero (PhotometricInterpretation 0) on {white} of its '
            f'{len(pages)} pages; save all of them alike.',
        )
    return black_is_zero(str(path), array), [
        warning(
            'white-is-zero',
            f'{path}: white is zero (PhotometricInterpretation 0); the values were '
            'turned, so that black is.',
        )
    ]


def _check_complete(path: Path, claimed: int) -> None:
    """Find damage that ITK reads over, and claims that the file does not keep."""
    fields, length = read_header(path)
    gzip = fields.get('encoding', '').lower() in ('gz', 'gzip')
    if fields.get('byte skip', '0') != '0' or fields.get('line skip', '0') != '0':
        return
    if gzip or fields.get('compresseddata', '').lower() == 'true':
        parts = data_files(path)
        content = (
            b''.join(map(read_content, parts)) if parts else read_content(path)[length:]
        )
        # Both end in a checksum.
        for _ in inflate(path, content, claimed, GZIP if gzip else ZLIB):
            pass


def _sizes(path: Path, fields: Mapping[str, str]) -> list[Problem]:
    """Tell a header without voxel sizes, or with negative ones."""
    if fields.get('space directions'):
        return []
    keys = ('elementspacing', 'elementsize', 'spacings')
    stated = next((fields[key] for key in keys if fields.get(key)), '')
    if stated and not re.search(r'(^|\s)-', stated):
        return []
    found = f'voxels of {stated}' if stated else 'no size of its voxels'
    read = 'without the sign' if stated else 'as 1 mm'
    return [
        warning(
            'spacing-unusual',
            f'{path} states {found}, which was read {read}. Distances in mm are wrong '
            'if that is.',
        )
    ]


def _header_problems(path: Path, suffix: str) -> tuple[float, list[Problem]]:
    """Factor from the header's units to mm; what is to be looked at."""
    fields, _ = read_header(path)
    problems = []
    keys = (
        ('transformmatrix', 'rotation', 'orientation')
        if suffix in _META
        else ('space', 'space dimension')
    )
    if not any(fields.get(key) for key in keys):
        problems.append(
            warning(
                'no-orientation',
                f'{path} states no orientation; the axes are taken as stored: x to '
                'the left, y to posterior, z up.',
            )
        )
    problems += _sizes(path, fields)
    units = set(re.findall(r'"([^"]*)"', fields.get('space units', '')))
    if not units - {'mm', ''}:
        return 1.0, problems
    factors = {_IN_MM[unit] for unit in units if unit in _IN_MM}
    if len(factors) != 1 or not units <= set(_IN_MM):
        raise CaseError(
            'spacing-units',
            f'{path} states lengths in {", ".join(sorted(units))}; expected one of '
            f'{", ".join(_IN_MM)} for all axes. Correct "space units".',
        )
    problems.append(
        warning(
            'spacing-units',
            f'{path} states lengths in {units.pop()}; they were converted to mm.',
        )
    )
    return factors.pop(), problems
