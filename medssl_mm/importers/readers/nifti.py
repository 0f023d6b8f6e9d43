"""NIfTI files, read to their end."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medssl_mm.importers.base import CaseError, Problem, warning
from medssl_mm.importers.readers.budget import (
    check_claim,
    inflated_limit,
    read_content,
    unzip,
)
from medssl_mm.store.orientation import corner_shift, spacing_of

# Codes of xyzt_units: metre and micrometre; all others count as mm.
_UNITS_IN_MM = {1: 1000.0, 3: 0.001}
FORM_TOLERANCE = 0.1  # of the smallest voxel edge, that two forms may differ
_START = 4096  # bytes that hold a header, packed or not


def read_nifti(
    path: str | Path, channels: int = 1
) -> tuple[np.ndarray, np.ndarray, list[Problem]]:
    """Read a NIfTI file completely.

    A ``.gz`` file is unpacked to its end, so its checksum is verified: a
    truncated or damaged file never yields pixels.

    Args:
        path (str | Path): ``.nii`` or ``.nii.gz``.
        channels (int): Length of a fourth axis. Defaults to 1: there is none.

    Returns:
        tuple: array ``(I, J, K)``, or ``(I, J, K, channels)``, scale factors
        applied (float32 where they are not trivial); affine ``(4, 4)`` in mm;
        list[Problem] of the header.

    Raises:
        CaseError: Unreadable file, or no 3-D grey volume.
    """
    path = Path(path)
    try:
        image, array, stated = _unpack(path, channels)
    except CaseError:
        raise
    except Exception as error:  # many kinds; each means the file is bad
        raise _unreadable(path, error) from None
    factor = _UNITS_IN_MM.get(int(image.header['xyzt_units']) & 7, 1.0)
    affine, problems = _choose_form(path, image, factor)
    lengths = np.isfinite(stated) & (stated > 0)
    if not lengths.all() and not int(image.header['sform_code']):
        problems.append(
            warning(
                'spacing-unusual',
                f'{path}: pixdim says voxels of {_numbers(stated)}; what is no length '
                f'was read as {_numbers(spacing_of(affine))} mm. Distances in mm are '
                'wrong if that is.',
            )
        )
    if factor != 1:
        problems.append(
            warning(
                'spacing-units',
                f'{path} states lengths in '
                f'{image.header.get_xyzt_units()[0]}; they were converted to mm.',
            )
        )
    return array, affine, problems


def read_header(path: str | Path) -> Any:
    """Read the header of a NIfTI file (nibabel's), whatever its name says of gzip.

    Raises:
        CaseError: Unreadable.
    """
    try:
        return _header(read_content(path))[0]
    except CaseError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from None


def form_code(header: Any) -> int:
    """Code of the form that places a volume: 0 where it has neither."""
    return int(header['sform_code']) or int(header['qform_code'])


def _unreadable(path: str | Path, error: Exception) -> CaseError:
    reason = error.strerror if isinstance(error, OSError) else None
    detail = reason or (str(error).splitlines()[0] if str(error) else '')
    return CaseError(
        'unreadable',
        f'{path} cannot be read ({type(error).__name__}: {detail}). It '
        'is truncated, damaged or no NIfTI file; fetch it again.',
    )


def _header(content: bytes) -> tuple[Any, Any, NDArray[np.float64]]:
    """Header of a file by its content, nibabel's class of its image, and pixdim.

    Nibabel corrects the header; the three lengths are as the file has them.
    """
    start = content[:_START]
    if start[:2] == b'\x1f\x8b':
        start = zlib.decompressobj(31).decompress(start, _START)
    size = int.from_bytes(start[:4], 'little')
    swapped = int.from_bytes(start[:4], 'big')
    two = 540 in (size, swapped)
    kind: Any = nibabel.Nifti2Image if two else nibabel.Nifti1Image
    length = kind.header_class.sizeof_hdr
    if len(start) < length:
        raise EOFError(f'{len(start)} bytes of the header are there')
    stated = kind.header_class(start[:length], check=False)['pixdim'][1:4]
    return kind.header_class(start[:length]), kind, np.array(stated, np.float64)


def _unpack(path: Path, channels: int) -> tuple[Any, np.ndarray, NDArray[np.float64]]:
    """The image of nibabel, its values with scale factors applied, and pixdim."""
    content = read_content(path)
    header, kind, stated = _header(content)
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    _check_kind(path, shape, dtype, channels)
    packed = content[:2] == b'\x1f\x8b'
    there = inflated_limit(len(content)) if packed else len(content)
    wanted = check_claim(path, shape, dtype.itemsize, there)
    if packed:
        start = max(int(header['vox_offset']), header.sizeof_hdr + 4)
        content = unzip(path, content, wanted + start)
    image: Any = kind.from_bytes(content)
    array = image.dataobj.get_unscaled()
    slope, inter = image.dataobj.slope, image.dataobj.inter
    if (slope, inter) != (1, 0):  # nibabel made 1, 0 of unset factors
        # float32 holds 16 bits and their scaled values well enough.
        wide = np.float32 if dtype.itemsize <= 2 else np.float64
        array = array.astype(wide) * wide(slope) + wide(inter)
    return image, np.asarray(array).reshape(shape, order='F'), stated


def _check_kind(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, channels: int
) -> None:
    if dtype.names or dtype.kind == 'c':
        raise CaseError(
            'not-a-volume',
            f'{path} holds colour or complex voxels ({dtype}), expected grey values.',
        )
    if channels > 1 and shape[3:] == (channels,):
        return
    if len(shape) > 3 or channels > 1:
        raise CaseError(
            '4d-image',
            f'{path} has shape {shape}, expected '
            f'{f"a fourth axis of {channels} channels" if channels > 1 else "3 axes"}. '
            'Split the series into one file per volume, e.g. with '
            'nibabel.four_to_three, or name as many channels as there are '
            '(--channels, one name for one, or channel_names in dataset.json).',
        )
    if len(shape) < 3:
        raise CaseError(
            'not-a-volume',
            f'{path} has shape {shape}, expected 3 axes; a single slice '
            'needs a third axis of length 1.',
        )


def _choose_form(
    path: Path, image: Any, factor: float
) -> tuple[np.ndarray, list[Problem]]:
    """The affine that places a volume, mm, and where the header contradicts it."""
    header, grid = image.header, image.shape[:3]
    qform, q_code = _form(header.get_qform)
    sform, s_code = _form(header.get_sform)
    in_mm = np.array([factor] * 3 + [1.0])[:, None]
    if not q_code and not s_code:
        return np.array(image.affine) * in_mm, [
            warning(
                'no-orientation',
                f'{path} states no orientation (qform and sform code are 0); the '
                'axes are taken as stored: x to the left, y to anterior, z up.',
            )
        ]
    name, affine = ('sform', sform) if s_code else ('qform', qform)
    problems = []
    if s_code and not _usable(sform) and q_code and _usable(qform):
        name, affine = 'qform', qform
        message = f'{path}: its sform cannot be used ({sform}); the qform is.'
        problems.append(warning('qform-sform', message))
    elif s_code and q_code:
        problems += _compare_forms(path, grid, sform, qform, in_mm)
    if affine is None:
        raise CaseError(
            'affine', f'{path}: its {name} is no rotation; correct the header.'
        )
    problems += _compare_pixdim(path, grid, affine * in_mm, header, factor, name)
    return affine * in_mm, problems


def _form(get: Any) -> tuple[Any, int]:
    """A form and its code; None where the quaternion is none."""
    try:
        return get(coded=True)
    except (ValueError, HeaderDataError):
        return None, 1


def _usable(form: Any) -> bool:
    return (
        form is not None
        and bool(np.isfinite(form).all())
        and abs(np.linalg.det(form[:3, :3])) > 1e-12
    )


def _compare_forms(
    path: Path, grid: tuple[int, ...], sform: Any, qform: Any, in_mm: np.ndarray
) -> list[Problem]:
    if not _usable(sform):
        return []
    if not _usable(qform):
        message = f'{path}: its qform is no rotation; the sform is used.'
        return [warning('qform-sform', message)]
    shift = corner_shift(grid, sform * in_mm, qform * in_mm)
    if shift <= FORM_TOLERANCE * min(spacing_of(sform * in_mm)):
        return []
    return [
        warning(
            'qform-sform',
            f'{path}: qform and sform place the volume up to {shift:.3g} mm apart: '
            f'{_ends(grid, sform * in_mm)} by the sform, which is used, '
            f'{_ends(grid, qform * in_mm)} by the qform. Other programs may take the '
            'other one.',
        )
    ]


def _compare_pixdim(
    path: Path,
    grid: tuple[int, ...],
    affine: np.ndarray,
    header: Any,
    factor: float,
    name: str,
) -> list[Problem]:
    """Compare the voxel size of the header with that of the form, mm."""
    said = np.abs(np.asarray(header['pixdim'][1:4], np.float64)) * factor
    spacing = np.array(spacing_of(affine))
    if not _usable(affine) or (np.abs(said - spacing) <= 1e-3 * spacing).all():
        return []
    length = np.array(grid) - 1
    return [
        warning(
            'pixdim-sform',
            f'{path}: pixdim says voxels of {_numbers(said)} mm, the {name} '
            f'{_numbers(spacing)} mm; from the first voxel to the last that is '
            f'{_numbers(said * length)} or {_numbers(spacing * length)} mm. The '
            f'{name} is used.',
        )
    ]


def _ends(grid: tuple[int, ...], affine: np.ndarray) -> str:
    """Where the first and the last voxel of a grid lie, mm."""
    last = affine @ [*(n - 1 for n in grid), 1]
    return f'from ({_numbers(affine[:3, 3])}) to ({_numbers(last[:3])}) mm'


def _numbers(values: Any) -> str:
    return ', '.join(f'{value:.4g}' for value in values)
