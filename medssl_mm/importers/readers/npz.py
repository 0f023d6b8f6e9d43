"""Archives of NumPy arrays as MedMNIST has them."""

from __future__ import annotations

import functools
import os
import zipfile
import zlib

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.importers.readers.budget import LARGEST, check_claim, inflated_limit

_PACKED = 50  # times that pictures may be smaller in an archive
SUBSETS = ('train', 'val', 'test')


def read_archive(path: str) -> dict[str, np.ndarray]:
    """Read and check the six arrays of an archive.

    The last one read is kept, as its images are asked for one by one.

    Args:
        path (str): The ``.npz`` file.

    Returns:
        dict: ``{train,val,test}_images``, uint8 ``(N, H, W)`` or
        ``(N, H, W, 3)``, and ``{train,val,test}_labels``, integers
        ``(N, 1)`` or, of 0 and 1, ``(N, C)``.

    Raises:
        UserError: Unreadable, an array is missing or has another form.
    """
    return _read_archive(path, os.stat(path).st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read_archive(path: str, time: int) -> dict[str, np.ndarray]:
    names = [f'{subset}_{what}' for what in ('images', 'labels') for subset in SUBSETS]
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file.files]
            if missing:
                raise UserError(
                    f'{path} has no array {", ".join(missing)}; its arrays '
                    f'are {", ".join(file.files[:12])}'
                )
            for name in names:
                _check_claim(path, file.zip, f'{name}.npy')
            archive = {name: file[name] for name in names}
    except UserError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f'{path} is damaged or no NumPy archive ({error}); fetch it again'
        ) from None
    for name in names[:3]:
        _check_images(path, name, archive)
    for images, labels in zip(names[:3], names[3:]):
        _check_labels(path, labels, archive, len(archive[images]))
    return archive


def _check_claim(path: str, archive: zipfile.ZipFile, name: str) -> None:
    """Compare what the header of an array claims with what the archive holds."""
    info = archive.getinfo(name)
    with archive.open(info) as file:
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        if major > 1:
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    packed = min(info.compress_size, os.stat(path).st_size)
    there = min(info.file_size, inflated_limit(packed))
    # Archives of large pictures are large; but pictures do not pack that well.
    most = max(LARGEST, _PACKED * packed)
    check_claim(f'{path}, {name}', shape, dtype.itemsize, there, most)


def _check_images(path: str, name: str, archive: dict[str, np.ndarray]) -> None:
    """Refuse images that are not square, of 8 bit, or unlike those of train."""
    shape, kind = archive[name].shape, archive[name].dtype
    if (
        kind != np.uint8
        or not shape[0]
        or shape[1:] != archive['train_images'].shape[1:]
        or len(shape) not in (3, 4)
        or shape[1] != shape[2]
        or len(shape) == 4
        and shape[3] != 3
    ):
        raise UserError(
            f'{path}: {name} is {kind} {shape}; expected uint8, square, '
            '(N, H, W) or (N, H, W, 3), alike in all subsets'
            + (
                ' (3D sets cannot be imported)'
                if len(shape) == 4 and shape[3] == shape[1]
                else ''
            )
        )


def _check_labels(
    path: str, name: str, archive: dict[str, np.ndarray], images: int
) -> None:
    """Refuse labels of another number, kind, or range."""
    found, kind = archive[name].shape, archive[name].dtype
    width = archive['train_labels'].shape[1:]
    if kind.kind not in 'iu' or len(found) != 2 or found != (images, *width):
        raise UserError(
            f'{path}: {name} is {kind} {found}; expected integers '
            f'({images}, 1) or, alike in all subsets, (…, classes)'
        )
    low, high = int(archive[name].min()), int(archive[name].max())
    if low < 0 or width[0] > 1 and high > 1:
        raise UserError(
            f'{path}: {name} has values from {low} to {high}; '
            'expected 0, 1, ... (one column) or 0 and 1 (several)'
        )
