"""Retina photographs of EyePACS: the round field, cut out and reduced."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from medssl_mm.errors import UserError
from medssl_mm.importers.base import (
    CaseError,
    LoadedImage,
    Problem,
    SourceCase,
    warning,
)
from medssl_mm.importers.images import ImageDiscovery, ImageFiles
from medssl_mm.importers.readers.picture import (
    decode,
    eight_bit,
    read_bytes,
    upright,
)
from medssl_mm.importers.readers.table import (
    by_name,
    join_lists,
    read_rows,
    whole_number,
)
from medssl_mm.store.compat_splits import compat_lists
from medssl_mm.store.known import KNOWN
from medssl_mm.store.splits import make_holdout

SEARCH_SIDE = 512  # pixels of the longer side where the field is looked for
LEAST_CONTRAST = 6  # grey values of the field above the background
LEAST_SHARE = 0.1  # of the picture, that the field must cover


def find_field(picture: np.ndarray) -> tuple[float, float, float] | None:
    """Find the round field of a retina photograph.

    The background is the darkest of the four corners. What is brighter than
    it by a tenth of the picture's bright end (but at least 4 grey values)
    belongs to the field; its largest connected part is enclosed by the
    smallest circle. Nothing is divided by the picture's own range, so a dark
    picture is treated as a bright one, and a blank one has no field.

    Args:
        picture (np.ndarray): uint8 ``(H, W, 3)``.

    Returns:
        tuple | None: Centre x, y and radius in pixels (pixel ``i`` covering
        ``[i, i + 1]``); None when there is no field.
    """
    import cv2

    factor = min(1.0, SEARCH_SIDE / max(picture.shape[:2]))
    small = (
        picture
        if factor == 1
        else cv2.resize(
            picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA
        )
    )
    # The retina is red: in dark pictures the other channels are noise.
    bright = cv2.medianBlur(np.ascontiguousarray(small.max(2)), 5)
    height, width = bright.shape
    mask = _field_mask(bright)
    if mask is None:
        return None
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    (x, y), radius = cv2.minEnclosingCircle(max(contours, key=len))
    # Contours run through pixel centres.
    scale_x = picture.shape[1] / width
    scale_y = picture.shape[0] / height
    return (
        (x + 0.5) * scale_x,
        (y + 0.5) * scale_y,
        (radius + 0.5) * (scale_x + scale_y) / 2,
    )


def _field_mask(bright: np.ndarray) -> np.ndarray | None:
    """The largest part that is brighter than the background ``(H, W)`` uint8."""
    import cv2

    height, width = bright.shape
    side = max(2, min(height, width) // 24)
    corners = [
        bright[rows, columns]
        for rows in (slice(side), slice(-side, None))
        for columns in (slice(side), slice(-side, None))
    ]
    background = min(float(np.median(corner)) for corner in corners)
    contrast = float(np.percentile(bright, 95)) - background
    if contrast < LEAST_CONTRAST:
        return None
    mask = (bright > background + max(4.0, 0.1 * contrast)).astype(np.uint8)
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened)
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    if stats[largest, cv2.CC_STAT_AREA] < LEAST_SHARE * mask.size:
        return None
    return (labels == largest).astype(np.uint8)


def circle_crop(
    picture: np.ndarray, size: int, path: str = 'picture'
) -> tuple[np.ndarray, list[Problem]]:
    """Cut out the square around the round field and reduce it.

    The field's diameter becomes the side of the result; what lies outside
    the photograph is black. Where the frame cuts the field (as most cameras
    do above and below) the whole circle is kept.

    Args:
        picture (np.ndarray): uint8 ``(H, W, 3)``, RGB.
        size (int): Side of the result, pixels.
        path (str): The file, for messages.

    Returns:
        tuple: uint8 ``(size, size, 3)``; problems ('enlarged', a warning).

    Raises:
        CaseError: When there is no field (blank or nearly black picture).
    """
    import cv2

    field = find_field(picture)
    if field is None:
        raise CaseError(
            'no-retina',
            f'{path}: no round bright field was found (the '
            'picture is blank, nearly black, or mostly background); look at '
            'it, and remove it if there is no retina in it.',
        )
    x, y, radius = field
    problems = []
    if 2 * radius < size:
        problems.append(
            warning(
                'enlarged',
                f'{path}: the retina is only {2 * radius:.0f} pixels '
                f'wide, stored at {size}.',
            )
        )
    side = max(1, round(2 * radius))
    square = _cut(picture, round(x - radius), round(y - radius), side)
    square = cv2.resize(
        square,
        (size, size),
        interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR,
    )
    return square, problems


def _cut(picture: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """Cut out a square; what lies outside the picture is black."""
    height, width = picture.shape[:2]
    square = np.zeros((side, side, 3), np.uint8)
    rows = slice(max(0, top), min(height, top + side))
    columns = slice(max(0, left), min(width, left + side))
    square[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ] = picture[rows, columns]
    return square


class DiabeticRetinopathyImporter(ImageFiles):
    """EyePACS (Kaggle diabetic retinopathy detection), five grades.

    Pictures without a grade serve pretraining. Both eyes of a patient stay
    together. Splits: 'diabetic-retinopathy-patients' (drawn over all graded
    pictures) and, with both label files, 'diabetic-retinopathy-kaggle': the
    test pictures of the competition, a fifth of its training patients for
    validation, and 'diabetic-retinopathy-compat' (the same, the fifth by image, as
    published).
    """

    name = 'diabetic-retinopathy'
    classes = KNOWN[name].classes
    default_size = 299
    layout = """\
    <src>/trainLabels.csv (columns image,level) and <src>/**/10_left.jpeg
    (e.g. in <src>/train), if wanted also testLabels.csv or
    retinopathy_solution.csv and the test pictures"""
    file_name = re.compile(r'(\d+)_(left|right)')
    label_files = ('trainLabels.csv', 'testLabels.csv', 'retinopathy_solution.csv')

    def discover(self, src: Path) -> ImageDiscovery:
        """List the pictures, and the graded ones that are missing."""
        src = Path(src)
        grades = {
            src / name: self._read_grades(src / name)
            for name in self.label_files
            if (src / name).is_file()
        }
        train = src / self.label_files[0]
        if train not in grades:
            raise self.nothing_found(src, f'There is no {train.name}.')
        cases = self._cases(src, join_lists(grades))
        test = [i for path, found in grades.items() if path != train for i in found]
        if not test:
            return self.found(cases)
        names = list(grades[train])
        return self.found(
            cases,
            lists=self._lists(names, test),
            compat=compat_lists(self.name, names, 1.0, test),
        )

    def _cases(self, src: Path, labels: dict[str, int]) -> list[SourceCase]:
        files, cases = self.named_pictures(
            src,
            lambda path: path.stem if self.file_name.fullmatch(path.stem) else '',
            '<patient>_left.jpeg or <patient>_right.jpeg',
        )
        if not files:
            raise self.nothing_found(src, 'There are no pictures.')
        for stem in sorted({*files, *labels}):
            cases.append(
                self.image_case(
                    stem,
                    _patient(stem),
                    files.get(stem, src / f'{stem}.jpeg'),
                    labels.get(stem),
                )
            )
        return cases

    def _read_grades(self, path: Path) -> dict[str, int]:
        def parse(where: str, row: dict[str, str]) -> tuple[str, int]:
            name = re.sub(r'(?i)\.(png|jpe?g|tiff?)$', '', row['image'].strip())
            if not self.file_name.fullmatch(name):
                raise UserError(
                    f'{where}: expected <patient>_left or '
                    f'<patient>_right, found {name!r}'
                )
            level = whole_number(row['level'])
            if level is None or level > 4:
                raise UserError(
                    f'{where}: the grade must be 0 to 4, found {row["level"].strip()!r}'
                )
            return name, level

        return by_name(path, read_rows(path, ('image', 'level')), parse)

    def _lists(self, train: list[str], test: list[str]) -> dict[str, dict]:
        drawn = make_holdout(train, _patient, self.name, test=0.2, seed=0)
        subsets = dict(
            pretrain=train, train=drawn['train'], val=drawn['test'], test=test
        )
        return {'diabetic-retinopathy-kaggle': subsets}

    def load(self, case: SourceCase) -> LoadedImage:
        """Read one picture and cut out its round field."""
        picture, turned = read_reduced(case.image, 2 * self.side)
        image, problems = circle_crop(picture, self.side, case.image)
        return LoadedImage(image, [*turned, *problems])


def _patient(image_id: str) -> str:
    return image_id.split('_')[0]


def read_reduced(path: str, least_side: int) -> tuple[np.ndarray, list[Problem]]:
    """Read a colour picture, large JPEG files at a half, quarter or eighth.

    A JPEG file is stored in blocks of 8 pixels, which a decoder can shrink
    while reading: four times as fast as reading all pixels first.

    Args:
        path (str): The file.
        least_side (int): The shorter side stays at least this, pixels.

    Raises:
        CaseError: Unreadable, or not of 8 bit.
    """
    import cv2

    content = read_bytes(path)
    try:
        shorter = min(Image.open(io.BytesIO(content)).size)
    except Exception:
        shorter = 0  # decode says what is wrong
    flag = cv2.IMREAD_COLOR
    for share, reduced in (
        (8, cv2.IMREAD_REDUCED_COLOR_8),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
    ):
        if shorter >= share * least_side:
            flag = reduced
            break
    pixels = decode(path, content, flag | cv2.IMREAD_IGNORE_ORIENTATION)
    return upright(path, content, eight_bit(pixels, path))
