"""What the header of a TIFF file says of its pages; the decoders do not tell.

Adobe, TIFF revision 6.0: https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import Literal

import numpy as np

SIGNS = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # the latter two: BigTIFF
_PHOTOMETRIC, _ORIENTATION = 262, 274
_BYTES = {1: 1, 3: 2, 4: 4}  # of a number, by the type of its tag


@dataclass(frozen=True)
class Page:
    """Tags of one page.

    Args:
        photometric (int): What its values mean; 0: grey, white is zero; 1: grey, black
            is zero. Defaults to 1.
        orientation (int): Which way up, 1 to 8, as in EXIF. Defaults to 1.
    """

    photometric: int = 1
    orientation: int = 1


def read_pages(content: bytes | mmap) -> Iterator[Page]:
    """Follow the chain of pages of a file to its end.

    Raises:
        ValueError: The file ends before its pages do, or they have no end.
    """
    orders: dict[bytes, Literal['little', 'big']] = {b'II': 'little', b'MM': 'big'}
    order = orders.get(content[:2])

    def number(place: int, width: int) -> int:
        part = content[place : place + width]
        if len(part) < width or order is None:
            raise ValueError(f'its pages end at byte {len(content)}, before the last')
        return int.from_bytes(part, order)

    # BigTIFF has wider counts, entries and offsets.
    wide = number(2, 2) == 43
    first, count, entry, offset = (8, 8, 20, 8) if wide else (4, 2, 12, 4)
    place, seen = number(first, offset), set()
    while place:
        if place in seen:
            raise ValueError(f'its page at byte {place} follows itself')
        seen.add(place)
        start = place + count
        end = start + entry * number(place, count)
        place = number(end, offset)  # first: a count that cannot be ends here
        tags = {}
        for at in range(start, end, entry):
            tag, width = number(at, 2), _BYTES.get(number(at + 2, 2))
            if width and tag in (_PHOTOMETRIC, _ORIENTATION):
                tags[tag] = number(at + entry - offset, width)
        yield Page(tags.get(_PHOTOMETRIC, 1), tags.get(_ORIENTATION, 1))


def first_page(content: bytes | mmap) -> Page:
    """Tags of the first page; of a header that cannot be read the usual ones."""
    try:
        return next(read_pages(content), Page())
    except ValueError:  # the decoder says what is wrong
        return Page()


def black_is_zero(values: np.ndarray) -> np.ndarray:
    """Turn grey values of a page where white is zero into those of the same look.

    Raises:
        ValueError: Of signed or broken numbers the standard does not say which is
            black.
    """
    if values.dtype.kind != 'u':
        raise ValueError(
            f'pixels of type {values.dtype} where white is zero '
            '(PhotometricInterpretation 0), which is defined for unsigned whole '
            'numbers only; save the file with PhotometricInterpretation 1, its values '
            'turned or not.'
        )
    return np.invert(values)
