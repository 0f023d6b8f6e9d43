"""Picture files: grey, RGB or masks, read to their end."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from medssl_mm.importers.base import CaseError, Problem, warning
from medssl_mm.importers.integrity import MIN_SIDE
from medssl_mm.importers.naming import find_files
from medssl_mm.importers.readers.budget import (
    LARGEST_PICTURE,
    check_claim,
    check_pixels,
    inflated_limit,
    read_content,
)
from medssl_mm.importers.readers.tiff import black_is_zero
from medssl_mm.tiff import SIGNS as TIFF
from medssl_mm.tiff import first_page

SUFFIXES = ('.png', '.jpeg', '.jpg')
DICOM = ('.dcm', '.dicom')
ALL_SUFFIXES = (*SUFFIXES, '.tif', '.tiff', *DICOM)
PNG, JPEG = b'\x89PNG', b'\xff\xd8'
_ORIENTATION = 274  # EXIF tag: which way up, 1 to 8
_PNG_END, _JPEG_END = b'IEND\xaeB`\x82', b'\xff\xd9'
# What a pixel of a PNG file is made of, by its colour type.
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Markers of the JPEG segments that tell the size of the picture.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def find_pictures(src: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """List the image files under a folder, sorted; PNG and JPEG unless told."""
    return [path for path in find_files(src) if path.suffix.lower() in suffixes]


def read_bytes(path: str) -> bytes:
    """Read a PNG, JPEG or TIFF file that is complete and not too large to decode.

    Decoders accept a file cut short without a word: its parts are followed to the
    end mark. What some programs write behind it does not count.

    Raises:
        CaseError: Empty, truncated, of another format, or of too many pixels.
    """
    content = read_content(path)
    complete = False
    if content.startswith(PNG):
        # What is damaged in the middle is for the decoder.
        complete = _follow_png(path, content) or _PNG_END in content[-1024:]
    elif content.startswith(JPEG):
        complete = _follow_jpeg(path, content) or content[-2:] == _JPEG_END
    elif content.startswith(TIFF):
        complete = True  # it has no end mark, its decoder misses what is not there
        _check_tiff(path, content)
    if not complete:
        what = 'empty' if not content else 'truncated or no PNG, JPEG or TIFF'
        raise CaseError(
            'unreadable',
            f'{path}: the file is {what} ({len(content)} bytes); copy it again.',
        )
    return content


def _follow_png(path: str, content: bytes) -> bool:
    """Whether a PNG file has all of its chunks; its size is checked."""
    place = len(PNG) + 4
    while len(content) >= place + 12:
        length, kind = struct.unpack_from('>I4s', content, place)
        if kind == b'IHDR' and length >= 13 and len(content) >= place + 21:
            width, height, depth, colour = struct.unpack_from(
                '>IIBB', content, place + 8
            )
            check_pixels(path, width, height)
            row = (width * depth * _SAMPLES.get(colour, 1) + 7) // 8
            check_claim(path, (height, row), 1, inflated_limit(len(content)))
        place += 12 + length
        if kind == b'IEND':
            return place <= len(content)
    return False


def _follow_jpeg(path: str, content: bytes) -> bool:
    """Whether the scans of a JPEG file end; its size is checked.

    A preview in the segments before them has ends of its own.
    """
    place = 2
    while len(content) >= place + 9 and content[place] == 0xFF:
        marker = content[place + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from('>HH', content, place + 5)
            check_pixels(path, width, height)
        if marker == 0xDA:
            return content.rfind(_JPEG_END, place) > 0
        if marker == 0xFF:  # a byte that fills
            place += 1
            continue
        place += 2 + int.from_bytes(content[place + 2 : place + 4], 'big')
    return False


def _check_tiff(path: str, content: bytes) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            width, height = Image.open(io.BytesIO(content)).size
    except Image.DecompressionBombError:
        width = height = LARGEST_PICTURE
    except Exception:
        return  # the decoder says what is wrong
    check_pixels(path, width, height)


def decode(path: str, content: bytes, flag: int) -> np.ndarray:
    """Decode an image file with an OpenCV flag; colours in RGB(A) order.

    Raises:
        CaseError: Damaged.
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
    if pixels.ndim == 3:  # OpenCV has BGR, and what is transparent behind it
        clear = pixels.shape[2] == 4
        pixels = pixels[..., (2, 1, 0, 3)] if clear else pixels[..., 2::-1]
    return pixels


def read_picture(path: str) -> tuple[np.ndarray, list[Problem]]:
    """Read an image at its own depth: ``(H, W)``, or ``(H, W, 3)`` RGB.

    It is turned as its file says (EXIF), and black is zero. Of several pages the first
    is taken, and of transparent pixels their colour, with a warning.

    Raises:
        CaseError: Unreadable or truncated.
    """
    import cv2

    content = read_bytes(path)
    pixels = decode(path, content, cv2.IMREAD_UNCHANGED)
    problems = []
    # OpenCV does this by itself where a pixel has 8 bits at most.
    if (
        content.startswith(TIFF)
        and pixels.dtype != np.uint8
        and first_page(content).photometric == 0
    ):
        pixels = black_is_zero(path, pixels)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        full = 1 if pixels.dtype.kind == 'f' else np.iinfo(pixels.dtype).max
        clear = int((pixels[..., 3] < full).sum())
        pixels = pixels[..., :3]
        if clear:
            problems.append(
                warning(
                    'transparent',
                    f'{path}: {clear} pixels are transparent; the colour that they '
                    'have nevertheless was taken.',
                )
            )
    pages = _pages(content)
    if pages > 1:
        problems.append(
            warning('several-pages', f'{path}: {pages} pages; the first was taken.')
        )
    pixels, turned = upright(path, content, pixels)
    return pixels, [*problems, *turned]


def _pages(content: bytes) -> int:
    """Pages of a TIFF file, or frames of an animated PNG; else 1."""
    animated = content.startswith(PNG) and b'acTL' in content[:1024]
    if not animated and not content.startswith(TIFF):
        return 1
    try:
        return getattr(Image.open(io.BytesIO(content)), 'n_frames', 1)
    except Exception:  # the decoder could read it
        return 1


def upright(
    path: str, content: bytes, pixels: np.ndarray
) -> tuple[np.ndarray, list[Problem]]:
    """Turn decoded pixels as the EXIF data of their file say, as viewers do.

    Args:
        path (str): The file, for messages.
        content (bytes): What it holds; OpenCV has turned TIFF already.
        pixels (np.ndarray): ``(H, W, ...)``, as stored.

    Returns:
        tuple: pixels; 'turned' (warning) where they are not as stored.
    """
    turn = _orientation(content)
    if turn not in range(2, 9):
        return pixels, []
    if not content.startswith(TIFF):
        if turn > 4:
            pixels = pixels.swapaxes(0, 1)
        if turn in (3, 4, 7, 8):
            pixels = pixels[::-1]
        if turn in (2, 3, 6, 7):
            pixels = pixels[:, ::-1]
        pixels = np.ascontiguousarray(pixels)
    return pixels, [
        warning('turned', f'{path}: turned as its EXIF data say (orientation {turn}).')
    ]


def _orientation(content: bytes) -> int:
    """Which way up a picture is stored, by its EXIF data; 1: as it is shown."""
    if content.startswith(TIFF):
        return first_page(content).orientation
    # A picture without EXIF data is not parsed a second time.
    if (b'eXIf' if content.startswith(PNG) else b'Exif\0') not in content:
        return 1
    try:
        return Image.open(io.BytesIO(content)).getexif().get(_ORIENTATION, 1)
    except Exception:  # metadata are no reason to leave a picture out
        return 1


def _as_grey(pixels: np.ndarray, path: str) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels
    coloured = int((pixels != pixels[..., :1]).any(-1).sum())
    if coloured:
        raise CaseError(
            'not-grey',
            f'{path}: {coloured} coloured pixels; expected a grey picture (or '
            'three equal channels).',
        )
    return np.ascontiguousarray(pixels[..., 0])


def read_grey(path: str) -> tuple[np.ndarray, list[Problem]]:
    """Read a grey image of 8 or 16 bit; three equal channels become one.

    Raises:
        CaseError: Unreadable, truncated, or coloured.
    """
    pixels, problems = read_picture(path)
    return _as_grey(pixels, path), problems


def eight_bit(pixels: np.ndarray, path: str) -> np.ndarray:
    """Refuse an image of another depth.

    Raises:
        CaseError: Not of 8 bit.
    """
    if pixels.dtype != np.uint8:
        raise CaseError(
            'bit-depth',
            f'{path}: pixels of type {pixels.dtype}, expected '
            '8 bit; convert the file with a stated grey window first.',
        )
    return pixels


def read_grey_picture(path: str) -> tuple[np.ndarray, list[Problem]]:
    """Read a grey image ``(H, W)``; equal channels become one.

    Raises:
        CaseError: Unreadable, not of 8 bit, or coloured.
    """
    return _with_channels(path, 1)


def read_colour_picture(path: str) -> tuple[np.ndarray, list[Problem]]:
    """Read a colour image ``(H, W, 3)``, RGB; a grey one is repeated.

    Raises:
        CaseError: Unreadable, or not of 8 bit.
    """
    return _with_channels(path, 3)


def _with_channels(path: str, channels: int) -> tuple[np.ndarray, list[Problem]]:
    pixels, problems = read_picture(path)
    pixels, more = in_channels(pixels, channels, path)
    return pixels, [*problems, *more]


def in_channels(
    pixels: np.ndarray, channels: int, path: str
) -> tuple[np.ndarray, list[Problem]]:
    """Give an image the channels of its set.

    Args:
        pixels (np.ndarray): ``(H, W)``, or ``(H, W, 3)`` RGB.
        channels (int): 1: three equal channels become one; 3: a grey one is
            repeated, with a warning.
        path (str): The file, for messages.

    Raises:
        CaseError: Not of 8 bit, or coloured where grey is expected.
    """
    pixels = eight_bit(pixels, path)
    if channels == 1:
        return _as_grey(pixels, path), []
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, 2), [
            warning(
                'grey',
                f'{path}: a grey picture among colour ones; its channels '
                'are all the same.',
            )
        ]
    return np.ascontiguousarray(pixels), []


def scale_to_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map low-high to 0-255, clipped and rounded; all 0 where they are equal."""
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def read_mask(path: str, classes: Sequence[str], values: list | None) -> np.ndarray:
    """Read a mask and translate it into class indices.

    Args:
        path (str): The file.
        classes (Sequence[str]): Class names, background first.
        values (list, optional): RGB triple or grey value of every class; None:
            the pixels are the class indices. A file with a colour table is
            then read by the entries of the table, as VOC has them.

    Returns:
        np.ndarray: ``(H, W)`` uint8.

    Raises:
        CaseError: Unreadable, or values that stand for no class.
    """
    if values is not None and isinstance(values[0], list):
        colours = True
        pixels, _ = read_picture(path)
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, 2)
        red, green, blue = np.moveaxis(pixels.astype(np.int32), 2, 0)
        pixels = red << 16 | green << 8 | blue
        known = [r << 16 | g << 8 | b for r, g, b in values]
    else:
        colours = False
        entries = None if values else _table_entries(path)
        pixels = read_grey(path)[0] if entries is None else entries
        pixels = pixels.astype(np.int32)
        known = values or list(range(len(classes)))
    # One comparison per class; sorting the pixels would be far slower.
    label = np.zeros(pixels.shape, np.uint8)
    missed = np.ones(pixels.shape, bool)
    for index, value in enumerate(known):
        hit = pixels == value
        label[hit] = index
        missed &= ~hit
    if missed.any():
        raise _unknown_colours(path, pixels[missed], classes, known, colours)
    return label


def _table_entries(path: str) -> np.ndarray | None:
    """Pixels of a PNG with a colour table as indices into it; else None.

    A grey one of 1 bit holds 0 and 1, which others show as 0 and 255.
    """
    content = read_bytes(path)
    depth, kind = content[24:26]  # of a PNG
    if not content.startswith(PNG) or not (kind == 3 or (depth, kind) == (1, 0)):
        return None
    try:
        entries = np.asarray(Image.open(io.BytesIO(content)))
        return upright(path, content, entries)[0]
    except Exception as error:
        raise CaseError(
            'unreadable', f'{path}: the image data is damaged ({error}); copy it again.'
        ) from None


def _unknown_colours(
    path: str,
    missed: np.ndarray,
    classes: Sequence[str],
    known: Sequence[int],
    colours: bool,
) -> CaseError:
    values, counts = np.unique(missed, return_counts=True)
    unknown = sorted(zip(values.tolist(), counts.tolist()), key=lambda item: -item[1])
    shown = ', '.join(
        f'{_colour(value, colours)} {count} pixel(s)' for value, count in unknown[:4]
    )
    names = ', '.join(
        f'{name} {_colour(value, colours)}' for name, value in zip(classes, known)
    )
    return CaseError(
        'unknown-colour',
        f'{path}: {len(unknown)} unknown mask '
        f'{"colour" if colours else "value"}(s): {shown}; known are '
        f'{names}. Complete the palette, or export the mask without '
        'smoothing or compression.',
    )


def _colour(value: int, colours: bool) -> str:
    if not colours:
        return str(value)
    return f'({value >> 16}, {value >> 8 & 255}, {value & 255})'


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
    factor = size / (max if pad else min)(height, width)
    problems = _misfits(path, height, width, size, pad, factor > 1)
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


def stretch(pixels: np.ndarray, size: int) -> np.ndarray:
    """Bring an image to ``size`` x ``size`` pixels, whatever its shape."""
    import cv2

    way = cv2.INTER_AREA if min(pixels.shape[:2]) > size else cv2.INTER_LINEAR
    return cv2.resize(pixels, (size, size), interpolation=way)


def _misfits(
    path: str, height: int, width: int, size: int, pad: bool, enlarged: bool
) -> list[Problem]:
    """Warnings about an image that is not square, or smaller than the set's."""
    shape = f'{path}: {height} x {width} pixels (rows, columns)'
    problems = []
    if height != width:
        what = 'padded' if pad else 'its centre was cut out'
        problems.append(warning('not-square', f'{shape}; {what}.'))
    if enlarged:
        problems.append(
            warning(
                'enlarged', f'{shape}, stored at {size}; a smaller --size would do.'
            )
        )
    return problems
