"""One ``.b2nd`` file: slices or images in blosc2, one chunk each, verified."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError

_INDEX, _TAG = 'medssl_index', 'medssl_tag'
_INDEX_DTYPE = np.dtype(
    [  # size 0: every pixel is `fill`, nothing is read
        ('offset', '<i8'),
        ('size', '<u4'),
        ('checksum', '<u4'),
        ('fill', '<f8'),
    ]
)


def _blosc2():
    """Import blosc2 on first use: it takes a third of a second."""
    import blosc2

    return blosc2


class SliceReader:
    """One ``.b2nd`` file, one slice (or image) at a time.

    Reads the chunk of a slice by its place in the index that
    :func:`write_slices` or :func:`write_chunks` left in the file. No file
    stays open or mapped, so neither descriptors nor resident pages pile up. A
    chunk is verified against its checksum the first time it is read.

    Args:
        path (str | Path): The file.

    Raises:
        UserError: File missing, damaged, or not made by the store.
    """

    def __init__(self, path: str | Path):
        self.path = str(path)
        try:
            array = _blosc2().open(self.path, mode='r')
            index = np.frombuffer(array.schunk.vlmeta[_INDEX], _INDEX_DTYPE)
            self.shape, self.dtype = tuple(array.shape), np.dtype(array.dtype)
            meta = array.schunk.vlmeta
            self.tag = meta[_TAG] if _TAG in meta else ''
            if len(index) != self.shape[0]:
                raise ValueError('the index is incomplete')
        except Exception as error:
            raise self._damaged(error) from None
        self._index = index
        self._verified = bytearray(len(index))

    def _damaged(self, reason) -> UserError:
        if not os.path.exists(self.path):
            reason = 'the file is missing'
        return UserError(
            f'cannot read {self.path}: {reason}. Delete the folder '
            f'{os.path.dirname(self.path)} and run tools/prepare_data.py '
            'again to import it anew.'
        )

    def read(self, index: int) -> np.ndarray:
        """Read slice ``index``, ``(H, W)`` (images: or ``(H, W, 3)``)."""
        if not -self.shape[0] <= index < self.shape[0]:
            raise IndexError(
                f'slice {index} is out of range: {self.path} has {self.shape[0]} slices'
            )
        index = int(index) % self.shape[0]
        offset, size, checksum, fill = self._index[index].item()
        if not size:
            return np.full(self.shape[1:], fill, self.dtype)
        out = np.empty(self.shape[1:], self.dtype)
        try:
            chunk = _read_bytes(self.path, offset, size)
            if not self._verified[index] and zlib.crc32(chunk) != checksum:
                raise ValueError(f'checksum of slice {index} is wrong')
            _blosc2().decompress2(chunk, dst=out, nthreads=1)
        except Exception as error:
            raise self._damaged(error) from None
        self._verified[index] = 1
        return out

    def read_chunk(self, index: int) -> tuple[bytes, int | None]:
        """Read one image as :func:`write_chunks` takes it."""
        offset, size, checksum, fill = self._index[index].item()
        if not size:
            return compress_image(self.read(index)), int(fill)
        chunk = _read_bytes(self.path, offset, size)
        if zlib.crc32(chunk) != checksum:
            raise self._damaged(f'checksum of image {index} is wrong')
        return chunk, None

    def read_all(self) -> np.ndarray:
        """Read all slices, ``(Z, H, W)``."""
        out = np.empty(self.shape, self.dtype)
        for index in range(self.shape[0]):
            out[index] = self.read(index)
        return out


def _read_bytes(path: str, offset: int, size: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        content = os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)
    if len(content) != size:
        raise ValueError('the file is truncated')
    return content


def write_slices(path: str | Path, volume: np.ndarray) -> None:
    """Write a ``(Z, H, W)`` array as blosc2, one chunk per slice.

    LZ4HC with byte shuffle: on real and made CT slices about 10 % larger
    than zstd level 5 and read three times as fast; compare
    ``tools/benchmark/slice_io.py``. The place and checksum of every chunk go
    into the file's metadata; any blosc2 can read the file without them.
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
    content = Path(path).read_bytes()
    index = np.zeros(len(volume), _INDEX_DTYPE)
    end = 0
    for number, image in enumerate(volume):
        if (image == image.flat[0]).all():
            index[number] = 0, 0, 0, image.flat[0]
            continue
        chunk = array.schunk.get_chunk(number)
        offset = content.index(chunk, end)
        end = offset + len(chunk)
        index[number] = offset, len(chunk), zlib.crc32(chunk), 0
    array.schunk.vlmeta[_INDEX] = index.tobytes()


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
        path (str | Path): The file; replaced if it exists.
        shape (tuple[int]): ``(N, H, W)`` or ``(N, H, W, 3)``.
        chunks (Iterable): N times the bytes of :func:`compress_image` and
            the value of a constant image (else None).
        tag (str): Kept in the file, see ``SliceReader.tag``. Defaults to ''.
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
    end = None
    # Not buffered: blosc2 writes to the file between two reads.
    with open(path, 'rb', buffering=0) as file:
        for number, (chunk, fill) in enumerate(chunks):
            array.schunk.update_chunk(number, chunk)
            if fill is not None:
                # Not always kept as bytes: blosc2 has codes for constants.
                index[number] = 0, 0, 0, fill
                end = _end_of_data(file, end, chunk)
                continue
            # Chunks follow each other; the first comes after the header.
            if end is None:
                file.seek(0)
                offset = file.read(len(chunk) + 65536).index(chunk[:32])
            else:
                offset = end
            index[number] = offset, len(chunk), zlib.crc32(chunk), 0
            end = offset + len(chunk)
    array.schunk.vlmeta[_INDEX] = index.tobytes()
    array.schunk.vlmeta[_TAG] = tag


def _end_of_data(file, end: int | None, chunk: bytes) -> int | None:
    """End of the chunks after one that may have left no bytes."""
    if end is None:
        return None
    file.seek(end)
    return end + len(chunk) if file.read(len(chunk)) == chunk else end
