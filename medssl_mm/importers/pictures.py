"""Read image files as 8-bit grey or RGB, and bring them to one size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medssl_mm.importers.base import CaseError, Problem
from medssl_mm.importers.integrity import MIN_SIDE, warning

SUFFIXES = ('.png', '.jpeg', '.jpg')
PNG, JPEG = b'\x89PNG', b'\xff\xd8'


def find_pictures(src: Path) -> list[Path]:
    """List the image files under a folder, sorted."""
    return sorted(
        path
        for path in src.rglob('*')
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )


def read_bytes(path: str) -> bytes:
    """Read a PNG or JPEG file that is complete.

    Decoders accept a file cut short without a word: the end mark tells.

    Raises:
        CaseError: Empty, truncated, or of another format.
    """
    content = Path(path).read_bytes()
    complete = (
        content.startswith(PNG)
        and b'IEND' in content[-16:]
        or content.startswith(JPEG)
        and b'\xff\xd9' in content[-1024:]
    )
    if not complete:
        what = 'empty' if not content else 'truncated or no PNG or JPEG'
        raise CaseError(
            'unreadable',
            f'{path}: the file is {what} ({len(content)} bytes); copy it again.',
        )
    return content


def decode(path: str, content: bytes, flag: int) -> np.ndarray:
    """Decode an image file with an OpenCV flag; colours in RGB order.

    Raises:
        CaseError: Damaged, or not of 8 bit.
    """
    import cv2

    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise CaseError(
            'unreadable', f'{path}: the image data is damaged; copy the file again.'
        )
    if pixels.dtype != np.uint8:
        raise CaseError(
            'bit-depth',
            f'{path}: pixels of type {pixels.dtype}, expected '
            '8 bit; convert the file with a stated grey window first.',
        )
    if pixels.ndim == 3:
        pixels = pixels[..., 2::-1]  # drops alpha; OpenCV has BGR
    return pixels


def read_grey_picture(path: str) -> tuple[np.ndarray, list[Problem]]:
    """Read a grey image ``(H, W)``; equal channels become one.

    Raises:
        CaseError: Unreadable, not of 8 bit, or coloured.
    """
    import cv2

    pixels = decode(path, read_bytes(path), cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 3:
        coloured = int((pixels != pixels[..., :1]).any(-1).sum())
        if coloured:
            raise CaseError(
                'not-grey',
                f'{path}: {coloured} coloured pixels; expected '
                'a grey picture (or three equal channels).',
            )
        pixels = pixels[..., 0]
    return np.ascontiguousarray(pixels), []


def read_colour_picture(path: str) -> tuple[np.ndarray, list[Problem]]:
    """Read a colour image ``(H, W, 3)``, RGB; a grey one is repeated.

    Raises:
        CaseError: Unreadable, or not of 8 bit.
    """
    import cv2

    pixels = decode(path, read_bytes(path), cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, 2), [
            warning(
                'grey',
                f'{path}: a grey picture among colour ones; its channels '
                'are all the same.',
            )
        ]
    return np.ascontiguousarray(pixels), []


def fit_square(
    pixels: np.ndarray, size: int, path: str, pad: bool
) -> tuple[np.ndarray, list[Problem]]:
    """Bring an image to ``size`` x ``size`` pixels, its shape kept.

    Args:
        pixels (np.ndarray): uint8 ``(H, W)`` or ``(H, W, 3)``.
        size (int): Side of the result, pixels.
        path (str): The file, for messages.
        pad (bool): What happens to an image that is not square: True adds
            black right and below, so that nothing is lost (X-rays), False
            cuts the centre out (patches of tissue).

    Returns:
        tuple: image; problems ('not-square', 'enlarged' as warnings).

    Raises:
        CaseError: Fewer than 8 pixels a side.
    """
    import cv2

    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise CaseError(
            'tiny',
            f'{path}: {height} x {width} pixels (rows, columns), '
            f'fewer than {MIN_SIDE} a side.',
        )
    if (height, width) == (size, size):
        return pixels, []
    problems = []
    if height != width:
        problems.append(
            warning(
                'not-square',
                f'{path}: {height} x {width} pixels (rows, '
                f'columns); {"padded" if pad else "its centre was cut out"}.',
            )
        )
    factor = size / (max if pad else min)(height, width)
    if factor > 1:
        problems.append(
            warning(
                'enlarged',
                f'{path}: {height} x {width} pixels (rows, columns), '
                f'stored at {size}; a smaller --size would do.',
            )
        )
    rows, columns = (max(1, round(side * factor)) for side in (height, width))
    pixels = cv2.resize(
        pixels,
        (columns, rows),
        interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR,
    )
    top, left = max(0, rows - size) // 2, max(0, columns - size) // 2
    pixels = pixels[top : top + size, left : left + size]
    bottom, right = size - pixels.shape[0], size - pixels.shape[1]
    if bottom or right:
        pixels = cv2.copyMakeBorder(
            pixels, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(0,) * 4
        )
    return np.ascontiguousarray(pixels), problems
