"""NIfTI files, read to their end."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from medssl_mm.importers.base import CaseError, Problem, warning
from medssl_mm.store.orientation import spacing_of

# Codes of xyzt_units: metre and micrometre; all others count as mm.
_UNITS_IN_MM = {1: 1000.0, 3: 0.001}


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
        image, array = _unpack(path, channels)
    except CaseError:
        raise
    except FileNotFoundError:
        raise CaseError('missing', f'{path} does not exist.') from None
    except Exception as error:  # many kinds; each means the file is bad
        detail = str(error).splitlines()[0] if str(error) else ''
        raise CaseError(
            'unreadable',
            f'{path} cannot be read ({type(error).__name__}: {detail}). It '
            'is truncated, damaged or no NIfTI file; fetch it again.',
        ) from None
    problems = _header_problems(path, image)
    affine = np.array(image.affine)
    factor = _UNITS_IN_MM.get(int(image.header['xyzt_units']) & 7, 1.0)
    if factor != 1:
        affine[:3] *= factor
        problems.append(
            warning(
                'spacing-units',
                f'{path} states lengths in '
                f'{image.header.get_xyzt_units()[0]}; they were converted to mm.',
            )
        )
    return array, affine, problems


def _unpack(path: Path, channels: int) -> tuple[Any, np.ndarray]:
    """The image of nibabel, and its values with their scale factors applied."""
    content = path.read_bytes()
    if content[:2] == b'\x1f\x8b':
        content = gzip.decompress(content)
    size = int.from_bytes(content[:4], 'little')
    swapped = int.from_bytes(content[:4], 'big')
    two = 540 in (size, swapped)
    kind = nibabel.Nifti2Image if two else nibabel.Nifti1Image
    image: Any = kind.from_bytes(content)
    shape, dtype = image.shape, image.get_data_dtype()
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    _check_kind(path, shape, dtype, channels)
    array = image.dataobj.get_unscaled()
    slope, inter = image.dataobj.slope, image.dataobj.inter
    if (slope, inter) != (1, 0):  # nibabel made 1, 0 of unset factors
        # float32 holds 16 bits and their scaled values well enough.
        wide = np.float32 if dtype.itemsize <= 2 else np.float64
        array = array.astype(wide) * wide(slope) + wide(inter)
    return image, np.asarray(array).reshape(shape, order='F')


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


def _header_problems(path: Path, image: Any) -> list[Problem]:
    header = image.header
    q_affine, q_code = header.get_qform(coded=True)
    s_affine, s_code = header.get_sform(coded=True)
    if not q_code and not s_code:
        return [
            warning(
                'no-orientation',
                f'{path} states no orientation (qform and sform code are 0); the '
                'axes are taken as stored: x to the left, y to anterior, z up.',
            )
        ]
    if q_code and s_code:
        size = max(image.shape[:3])
        shift = np.abs(q_affine[:3] - s_affine[:3]) @ [size, size, size, 1]
        if shift.max() > min(spacing_of(s_affine)):
            return [
                warning(
                    'qform-sform',
                    f'{path}: qform and sform place the volume up to '
                    f'{shift.max():.3g} mm apart; the sform is used.',
                )
            ]
    return []
