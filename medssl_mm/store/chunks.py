"""One ``.b2nd`` file: slices or images in blosc2, one chunk each, verified."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np

from medssl_mm.errors import UserError

_INDEX, _TAG = 'medssl_index', 'medssl_tag'
_INDEX_DTYPE = np.dtype(
    [  # size 0: every pixel is `fill`, nothing is read
        ('offset', '<i8'),  # of the first stores; blosc2 finds the chunks itself
        ('size', '<u4'),
        ('checksum', '<u4'),
        ('fill', '<f8'),
    ]
)


def _blosc2() -> ModuleType:
    """Import blosc2 on first use: it takes a third of a second."""
    import blosc2  # type: ignore[import-untyped]

    return blosc2


class ChunkReader:
    """One ``.b2nd`` file, one slice (or image) at a time.

    blosc2 reads the chunk of a slice by position, so workers may share a
    reader after a fork, and keeps few files open (96 at most, from version
    4.14; before that none). Nothing is mapped: a file that is cut off while
    it is read gives an error, not a bus error. A chunk is verified against its
    checksum the first time it is read.

    Args:
        path (str | Path): The file, as :func:`write_slices` or
            :func:`write_chunks` made it.

    Raises:
        UserError: File missing, damaged, or not made by the store.
    """

    def __init__(self, path: str | Path):
        self.path = str(path)
        try:
            # Not its schunk alone, which dies with the array.
            self._array = _blosc2().open(self.path, mode='r')
            meta = self._array.schunk.vlmeta
            index = np.frombuffer(meta[_INDEX], _INDEX_DTYPE)
            self.shape = tuple(self._array.shape)
            self.dtype = np.dtype(self._array.dtype)
            self.tag = meta[_TAG] if _TAG in meta else ''
            if len(index) != self.shape[0]:
                raise ValueError('the index is incomplete')
        except Exception as error:
            raise self._damaged(error) from None
        self._index = index
        self._verified = bytearray(len(index))

    def _damaged(self, reason: object) -> UserError:
        if not os.path.exists(self.path):
            reason = 'the file is missing'
        return UserError(
            f'cannot read {self.path}: {reason}. Delete the folder '
            f'{os.path.dirname(self.path)} and run tools/prepare_data.py '
            'again to import it anew.'
        )

    def read(self, index: int) -> np.ndarray:
        """Read slice ``index`` in its stored shape.

        Returns:
            np.ndarray: ``(H, W)``; ``(C, H, W)`` with several channels;
            images ``(H, W)`` or ``(H, W, 3)``.
        """
        if not -self.shape[0] <= index < self.shape[0]:
            raise IndexError(
                f'slice {index} is out of range: {self.path} has {self.shape[0]} slices'
            )
        index = int(index) % self.shape[0]
        if not self._index[index]['size']:
            return np.full(self.shape[1:], self._index[index]['fill'], self.dtype)
        out = np.empty(self.shape[1:], self.dtype)
        chunk = self._chunk(index)
        try:
            _blosc2().decompress2(chunk, dst=out, nthreads=1)
        except Exception as error:
            raise self._damaged(error) from None
        return out

    def _chunk(self, index: int) -> bytes:
        """Compressed bytes of a slice, verified once."""
        try:
            chunk = self._array.schunk.get_chunk(index)
        except Exception as error:
            raise self._damaged(f'slice {index}: {error}') from None
        if not self._verified[index]:
            if zlib.crc32(chunk) != self._index[index]['checksum']:
                raise self._damaged(f'checksum of slice {index} is wrong')
            self._verified[index] = 1
        return chunk

    def read_chunk(self, index: int) -> tuple[bytes, int | None]:
        """Read one image as :func:`write_chunks` takes it."""
        if not self._index[index]['size']:
            return compress_image(self.read(index)), int(self._index[index]['fill'])
        return self._chunk(index), None

    def read_all(self) -> np.ndarray:
        """Read all slices, ``(Z, H, W)`` or ``(Z, C, H, W)``."""
        out = np.empty(self.shape, self.dtype)
        for index in range(self.shape[0]):
            out[index] = self.read(index)
        return out


def write_slices(path: str | Path, volume: np.ndarray) -> None:
    """Write an array as blosc2, one chunk per slice.

    LZ4HC with byte shuffle: on real and made CT slices about 10 % larger
    than zstd level 5 and read three times as fast; compare
    ``tools/benchmark/slice_io.py``. The checksum of every chunk goes into the
    file's metadata; any blosc2 can read the file without it.

    Args:
        path: The file; replaced if it exists.
        volume: ``(Z, H, W)`` or ``(Z, C, H, W)``.
    """
    blosc2 = _blosc2()
    volume = np.ascontiguousarray(volume)
    cparams = dict(
        codec=blosc2.Codec.LZ4HC,
        clevel=5,
        filters=[blosc2.Filter.SHUFFLE],
        filters_meta=[0],
        nthreads=1,
    )
    unit = (1, *volume.shape[1:])  # blocks of a whole slice need no padding
    array = blosc2.asarray(
        volume,
        urlpath=str(path),
        mode='w',
        chunks=unit,
        blocks=unit,
        cparams=cparams,
        dparams={'nthreads': 1},
    )
    index = np.zeros(len(volume), _INDEX_DTYPE)
    for number, image in enumerate(volume):
        constant = (image == image.flat[0]).all()
        chunk = b'' if constant else array.schunk.get_chunk(number)
        index[number] = _entry(chunk, image.flat[0] if constant else None)
    array.schunk.vlmeta[_INDEX] = index.tobytes()


def _entry(chunk: bytes, fill: float | None) -> tuple:
    """Row of the index; a constant slice is not read, and has no checksum."""
    if fill is not None:
        return 0, 0, 0, fill
    return 0, len(chunk), zlib.crc32(chunk), 0


def compress_image(image: np.ndarray) -> bytes:
    """Compress one uint8 image into a chunk for :func:`write_chunks`.

    LZ4HC with bit shuffle: on X-rays, histology and retina photographs
    smaller than byte shuffle and read faster, and five to thirteen times as
    fast as the image's own PNG.
    """
    image = np.ascontiguousarray(image)
    return _blosc2().compress2(
        image, typesize=1, blocksize=image.nbytes, **_image_parameters()
    )


def _image_parameters() -> dict:
    blosc2 = _blosc2()
    return dict(
        codec=blosc2.Codec.LZ4HC,
        clevel=5,
        filters=[blosc2.Filter.BITSHUFFLE],
        filters_meta=[0],
        nthreads=1,
    )


def write_chunks(
    path: str | Path,
    shape: tuple[int, ...],
    chunks: Iterable[tuple[bytes, int | None]],
    tag: str = '',
) -> None:
    """Write uint8 images, compressed already, one chunk each.

    Never holds more than one image in memory. Any blosc2 can read the file.

    Args:
        path: The file; replaced if it exists.
        shape: ``(N, H, W)`` or ``(N, H, W, 3)``.
        chunks: N times the bytes of :func:`compress_image` and the value of a
            constant image (else None).
        tag: Kept in the file, see ``ChunkReader.tag``.
    """
    blosc2 = _blosc2()
    unit = (1, *shape[1:])
    array = blosc2.empty(
        shape,
        dtype=np.uint8,
        chunks=unit,
        blocks=unit,
        urlpath=str(path),
        mode='w',
        contiguous=True,
        cparams=_image_parameters(),
        dparams={'nthreads': 1},
    )
    index = np.zeros(shape[0], _INDEX_DTYPE)
    for number, (chunk, fill) in enumerate(chunks):
        array.schunk.update_chunk(number, chunk)
        index[number] = _entry(chunk, fill)
    array.schunk.vlmeta[_INDEX] = index.tobytes()
    array.schunk.vlmeta[_TAG] = tag
