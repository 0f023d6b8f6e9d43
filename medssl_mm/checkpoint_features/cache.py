"""Pooled features of a frozen network, computed once and kept on disk.

A cache is a folder with one folder per key, the digest of a description of
what the features depend on. It holds ``PLACE.npy`` of each place, float32,
memory-mapped when read, and ``features.json``, which has the digest of each of
them. A folder with that name is
complete: it is written under another name and then renamed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.files import file_hash

if TYPE_CHECKING:  # --help of the tools must not wait for torch
    from torch import Tensor

INDEX = 'features.json'


@dataclass(frozen=True)
class CachedFeatures:
    """Features of one network for the images of one subset.

    Args:
        folder (Path): Where they are.
        image_ids (tuple[str]): Images, in the order of the rows.
        places (tuple[str]): Places in the network, in its order.
        stride (int, optional): Pixels of the image per cell of the last map.
            Defaults to None: an earlier version wrote the features.
    """

    folder: Path
    image_ids: tuple[str, ...]
    places: tuple[str, ...]
    stride: int | None = None

    def read(self, place: str) -> np.ndarray:
        """Map the features of a place. Shape: ``(images, channels)``."""
        return np.load(self.folder / f'{place}.npy', mmap_mode='r')


def cache_key(description: Mapping) -> str:
    """Name the folder of a description: 16 hex digits of its SHA-256."""
    text = json.dumps(description, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_features(
    root: str | Path,
    description: Mapping,
    warn: Callable[[str], None] = lambda message: None,
) -> CachedFeatures | None:
    """Look the features up that a description stands for.

    Args:
        root (str | Path): The cache; need not exist.
        description (Mapping): What the features depend on; plain data.
        warn (Callable): Takes the message that what was found is damaged.
            Defaults to ignoring it.

    Returns:
        CachedFeatures | None: None when they are absent or damaged.
    """
    folder = Path(root) / cache_key(description)
    try:
        content = json.loads((folder / INDEX).read_text(encoding='utf-8'))
        found = CachedFeatures(
            folder,
            tuple(content['image_ids']),
            tuple(content['places']),
            content.get('stride'),
        )
        for place in found.places:
            rows = len(found.read(place))
            if rows != len(found.image_ids):
                raise ValueError(f'{place} has {rows} rows')
            digest = (content.get('digests') or {}).get(place)
            if digest is None:  # written by an earlier version
                warn(f'cached features {folder} ({place}): no digest to compare with')
            elif digest != _digest(folder / f'{place}.npy'):
                raise ValueError(f'{place} is not what was written, by its digest')
    except FileNotFoundError:
        if not folder.exists():
            return None
        warn(f'cached features {folder} are incomplete; computing them again')
    except (OSError, ValueError, KeyError, TypeError) as error:
        warn(f'cached features {folder} are damaged ({error}); computing them again')
    else:
        return found
    return None


def write_features(
    root: str | Path,
    description: Mapping,
    image_ids: Sequence[str],
    batches: Iterable[Mapping[str, 'Tensor']],
    stride: Callable[[], int | None] = lambda: None,
) -> CachedFeatures:
    """Write features, all or nothing.

    Args:
        root (str | Path): The cache; made if need be.
        description (Mapping): What the features depend on; plain data.
        image_ids (Sequence[str]): All images.
        batches (Iterable): Features by place, of some images at a time, in
            the order of ``image_ids``.
        stride (Callable): Called after the last batch; returns the stride of
            the last map. Defaults to one that is not known.

    Shape: features ``(N, channels)``, of all batches together as many rows
        as images.

    Raises:
        UserError: When features are not finite or the disk refuses them.
    """
    final = Path(root) / cache_key(description)
    temporary = final.with_name(f'.{final.name}.{os.getpid()}.tmp')
    try:
        with _disk(final):
            temporary.mkdir(parents=True, exist_ok=True)
        places = _write_rows(temporary, image_ids, batches, final)
        with _disk(final):
            digests = {name: _digest(temporary / f'{name}.npy') for name in places}
        own_stride = stride()
        content = dict(
            description=description,
            places=places,
            digests=digests,
            stride=own_stride,
            image_ids=list(image_ids),
        )
        with _disk(final):
            (temporary / INDEX).write_text(json.dumps(content), encoding='utf-8')
            _put_in_place(temporary, final, root, description)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return CachedFeatures(final, tuple(image_ids), tuple(places), own_stride)


def _digest(path: Path) -> str:
    return file_hash(path, 'blake2b', digest_size=16)


@contextmanager
def _disk(final: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f'cannot write the features to {final}: {error.strerror}; make room, or '
            'choose another folder (option --cache; of a table, its key cache)'
        ) from error


def _put_in_place(
    temporary: Path, final: Path, root: str | Path, description: Mapping
) -> None:
    if final.exists() and find_features(root, description) is None:
        shutil.rmtree(final)  # damaged
    try:
        os.replace(temporary, final)
    except OSError:
        # Another process may have written the same meanwhile.
        if find_features(root, description) is None:
            raise


def _write_rows(
    folder: Path,
    image_ids: Sequence[str],
    batches: Iterable[Mapping[str, 'Tensor']],
    final: Path,
) -> list[str]:
    # Ordinary writing, not a memory map: on a full disk the latter ends the
    # process by a signal.
    files: dict[str, BinaryIO] = {}
    rows = 0
    try:
        for batch in batches:
            for place, features in batch.items():
                values = features.detach().float().cpu().numpy()
                bad = np.flatnonzero(~np.isfinite(values).all(1))
                if len(bad):
                    raise UserError(
                        f'features of {place} are not finite for image '
                        f'{image_ids[rows + bad[0]]}; the weights or the '
                        'image are broken'
                    )
                with _disk(final):
                    if place not in files:
                        files[place] = open(folder / f'{place}.npy', 'wb')
                        shape = (len(image_ids), values.shape[1])
                        _write_header(files[place], values.dtype, shape)
                    files[place].write(np.ascontiguousarray(values).data)
            rows += len(values)
        with _disk(final):
            for file in files.values():
                file.close()
    finally:
        for file in files.values():
            with suppress(OSError):  # on a full disk what is left fails again
                file.close()
    assert rows == len(image_ids), f'{rows} rows, {len(image_ids)} images'
    return list(files)


def _write_header(file: BinaryIO, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_2_0(
        file,
        dict(
            descr=np.lib.format.dtype_to_descr(dtype),
            fortran_order=False,
            shape=shape,
        ),
    )
