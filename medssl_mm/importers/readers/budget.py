"""What a file may take: its claims are checked before memory is given to them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

from medssl_mm.files import read_regular
from medssl_mm.importers.base import CaseError

LARGEST = 4 << 30  # bytes of the voxels or pixels of one file
LARGEST_PICTURE = 1 << 28  # pixels
_SLACK = 1 << 20  # bytes that may follow what a header describes
_DEFLATE = 1032  # no deflated byte stands for more
_PART = 64 << 20  # bytes that are unpacked at a time
_MAGIC = b'\x1f\x8b'
GZIP, ZLIB = 31, 15  # what zlib calls them


def read_content(path: str | Path) -> bytes:
    """Read a file; a pipe, socket or device is refused, not waited for.

    Raises:
        CaseError: Missing, or no regular file.
        OSError: It cannot be read.
    """
    try:
        return read_regular(path, LARGEST)
    except FileNotFoundError:
        raise CaseError('missing', f'{path} does not exist.') from None


def check_claim(
    path: str | Path,
    shape: Sequence[int],
    itemsize: int,
    there: int | None = None,
    most: int = LARGEST,
) -> int:
    """Compare what a header claims with what one file may take, and with what is there.

    Args:
        path (str | Path): The file.
        shape (Sequence[int]): Of the array that the header describes.
        itemsize (int): Bytes of an element.
        there (int, optional): Most bytes that the file can hold. Defaults to None:
            not known.
        most (int): Most bytes that it may take. Defaults to 4 GiB.

    Returns:
        int: Bytes of the array.

    Raises:
        CaseError: 'too-large', or 'unreadable' where the file is too short for it.
    """
    wanted = prod(map(int, shape)) * int(itemsize)
    claim = f'{path}: its header claims {tuple(map(int, shape))} elements of {itemsize}'
    if wanted > most:
        raise CaseError(
            'too-large',
            f'{claim} byte(s), {_size(wanted)} in all; one file may take '
            f'{_size(most)}. Crop or split it, or store it in a smaller type; if it '
            'should be smaller, its header is damaged: fetch it again.',
        )
    if there is not None and wanted > there:
        raise CaseError(
            'unreadable',
            f'{claim} byte(s), {wanted} bytes in all; the file holds {there}. It is '
            'truncated or damaged; fetch it again.',
        )
    return wanted


def check_pixels(path: str | Path, width: int, height: int, pages: int = 1) -> None:
    """Refuse a picture of too many pixels before it is decoded.

    Raises:
        CaseError: 'too-large'.
    """
    if width * height * pages > LARGEST_PICTURE:
        raise CaseError(
            'too-large',
            f'{path}: its header claims {height} x {width} pixels (rows, columns), '
            f'{width * height * pages / 1e6:.0f} million; a picture may have '
            f'{LARGEST_PICTURE / 1e6:.0f} million. Cut it or reduce it first.',
        )


def inflated_limit(packed: int) -> int:
    """Most bytes that deflated data of so many bytes can hold."""
    return packed * _DEFLATE + _SLACK


def inflate(
    path: str | Path, content: bytes, size: int, kind: int = GZIP, most: int = _PART
) -> Iterator[bytes]:
    """Unpack data of a known size part by part, to their end and checksum.

    Args:
        path (str | Path): The file, for messages.
        content (bytes): One or several members.
        size (int): Bytes wanted; more than 1 MiB beyond them are refused.
        kind (int): :data:`GZIP` or :data:`ZLIB`. Defaults to the former.
        most (int): Bytes of a part. Defaults to 64 MiB.

    Yields:
        bytes: Parts; those within ``size`` end with it.

    Raises:
        CaseError: 'too-large'.
        EOFError: The data end early.
        zlib.error: They are damaged.
    """
    total = 0
    while content and (not total or content[:2] == _MAGIC):
        member = zlib.decompressobj(kind)
        while not member.eof:
            room = max(size - total, 0) or _SLACK
            part = member.decompress(content, min(room, most))
            content = member.unconsumed_tail
            if not part and not content and not member.eof:
                raise EOFError('the compressed data end early')
            total += len(part)
            if total > size + _SLACK:
                raise CaseError(
                    'too-large',
                    f'{path}: unpacked it holds more than the {size} bytes that its '
                    'header describes; it is damaged, or made to fill the memory.',
                )
            yield part
        content = member.unused_data
    if total < size:
        raise EOFError(f'{total} of {size} bytes are there')


def unzip(path: str | Path, content: bytes, size: int) -> bytes:
    """Unpack gzip data of a known size; what follows it is read, but not kept.

    Raises as :func:`inflate` does.
    """
    parts: list[bytes] = []
    total = 0
    for part in inflate(path, content, size, most=max(size, 1)):
        if total < size:
            parts.append(part)
        total += len(part)
    return parts[0] if len(parts) == 1 else b''.join(parts)


def _size(count: int) -> str:
    return f'{count / (1 << 30):.1f} GiB'
