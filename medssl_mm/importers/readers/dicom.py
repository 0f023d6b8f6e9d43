"""CT and MR series in DICOM: one file per slice, or many frames in one file.

Slices are ordered by their position along the slice normal, never by
instance number or file name.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medssl_mm.importers.base import CaseError, Problem, warning
from medssl_mm.importers.naming import find_files
from medssl_mm.importers.readers.dicom_file import (
    check_pixel_data,
    decode,
    number_of_frames,
    read_file,
    read_tags,
)

_HEADER = [
    'Modality',
    'ImageType',
    'SeriesInstanceUID',
    'StudyInstanceUID',
    'SeriesNumber',
    'PatientID',
    'Rows',
]
# Greatest differences within one series: of direction cosines, and of mm.
_SAME_DIRECTION, _SAME_SPACING = 1e-3, 1e-4
_SIDEWAYS = 0.5  # of a pixel, across the slice normal


@dataclass(frozen=True)
class Series:
    """The image files of one series.

    Args:
        modality (str): 'CT' or 'MR'.
        uid (str): Series UID, or the folder where the headers have none.
        person (str): Patient identifier, else the study; '' if neither.
        number (int, optional): Series number.
        folder (Path): The innermost folder of all its files.
        files (tuple[str]): The files.
    """

    modality: str
    uid: str
    person: str
    number: int | None
    folder: Path
    files: tuple[str, ...]


def group_series(
    src: Path, modality: str | None = None
) -> tuple[list[Series], Counter[str]]:
    """Group the CT and MR images below a folder by series.

    Localizers and objects that are no CT or MR image (structure sets,
    reports, DICOMDIR) are counted and passed over. Files of two patients or
    studies are two series, whatever their series UID says.

    Args:
        src (Path): Folder.
        modality (str, optional): Take only 'CT' or 'MR'. Defaults to None.

    Returns:
        tuple: the series, in the order of their first files; number of files
        passed over by reason.
    """
    groups: dict[tuple, list] = defaultdict(list)
    skipped: Counter[str] = Counter()
    for path in find_files(src):
        header = read_tags(path, _HEADER)
        reason = _passed_over(header, modality)
        if reason:
            skipped[reason] += 1
            continue
        found, uid, person, study = (
            str(header.get(key, '') or '')
            for key in (
                'Modality',
                'SeriesInstanceUID',
                'PatientID',
                'StudyInstanceUID',
            )
        )
        # De-identified files may have lost their UID: a folder is a series.
        key = (found, uid or f'folder:{path.parent}', person, study)
        groups[key].append((path, header.get('SeriesNumber', None)))
    series = [
        _make_series(found, uid, person or study, members)
        for (found, uid, person, study), members in groups.items()
    ]
    return series, skipped


def _passed_over(header: Any, modality: str | None) -> str:
    """Why a file is no part of a series; '' where it is."""
    if header is None:
        return 'no DICOM file'
    found = str(header.get('Modality', ''))
    kind = [str(value).upper() for value in header.get('ImageType', None) or ()]
    if found not in ('CT', 'MR'):
        return f'modality {found or "not given"}'
    if modality and found != modality:
        return f'modality {found}, not {modality}'
    return 'localizer' if any('LOCALIZER' in value for value in kind) else ''


def _make_series(modality: str, uid: str, person: str, members: list) -> Series:
    """Make a series of (file, series number)."""
    parents = {path.parent for path, _ in members}
    folder = min(parents, key=lambda p: (len(p.parts), str(p)))
    while not all(p.is_relative_to(folder) for p in parents):
        folder = folder.parent
    number = members[0][1]
    return Series(
        modality,
        uid,
        person,
        None if number is None else int(number),
        folder,
        tuple(str(path) for path, _ in members),
    )


@dataclass(frozen=True)
class _Frame:
    """One slice: its place, and where its pixels are."""

    name: str
    file: Any  # the data set that holds it
    index: int  # among the frames of that file
    spacing: np.ndarray  # mm between rows, between columns
    directions: np.ndarray  # (6,) along a row, down a column
    position: np.ndarray  # (3,) mm, LPS
    slope: float
    intercept: float | None
    thickness: float

    @property
    def size(self) -> tuple[int, int]:
        return int(self.file.Rows), int(self.file.Columns)


def read_series(
    files: Sequence[str],
) -> tuple[np.ndarray, np.ndarray, list[Problem]]:
    """Read the slices of one series into a volume.

    The value of a CT pixel is HU: stored value * slope + intercept, rounded;
    pixels that carry the declared padding value become air (-1024).

    Args:
        files (Sequence[str]): The files of one series, in any order: single
            slices, or enhanced CT or MR objects of many frames.

    Returns:
        tuple: array ``(columns, rows, slices)``, int16 for CT (MR: int16, or
        float32 where the rescaled values are not whole); affine ``(4, 4)`` to
        RAS+ world in mm; list of :class:`Problem` (warnings).

    Raises:
        CaseError: What is wrong with the series, with files and positions.
    """
    problems: list[Problem] = []
    headers = _drop_copies([_read_slices(path) for path in files], problems)
    frames = [frame for header in headers for frame in _frames_of(header)]
    _check_uniform(frames)
    frames, step = _order(frames, problems)
    first = frames[0]
    array = _pixels(frames, problems)
    # Values that do not fit stay float: the checks of every import judge.
    if (
        (first.file.Modality == 'CT' or (array == np.rint(array)).all())
        and array.min() >= -32768
        and array.max() <= 32767
    ):
        array = np.rint(array).astype(np.int16)

    row_step, column_step = first.spacing
    affine = np.eye(4)
    affine[:3, 0] = first.directions[:3] * column_step  # along a row: column index
    affine[:3, 1] = first.directions[3:] * row_step
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    affine[:2] *= -1  # DICOM's world is LPS, NIfTI's RAS
    return array.transpose(2, 1, 0), affine, problems


def _read_slices(path: str) -> Any:
    """Read a file of one slice or many; the pixels stay encoded."""
    header = read_file(path)
    frames = number_of_frames(header)
    if frames > 1 and 'PerFrameFunctionalGroupsSequence' not in header:
        raise CaseError(
            'multi-frame',
            f'{path}: {frames} frames in one file without the place of each; '
            'expected one slice per file or an enhanced CT or MR object. Convert '
            'the series to single-frame DICOM or to NIfTI (e.g. with dcm2niix) '
            'and import that.',
        )
    if any(str(value).upper() == 'MOSAIC' for value in header.get('ImageType') or ()):
        raise CaseError(
            'mosaic',
            f'{path}: a mosaic (ImageType MOSAIC), many slices in one picture; '
            'expected one slice per file. Convert the series to NIfTI (e.g. with '
            'dcm2niix) and import that.',
        )
    check_pixel_data(header)
    if int(header.get('SamplesPerPixel', 1)) != 1:
        raise CaseError(
            'not-grey',
            f'{path}: a colour image; expected grey CT or MR '
            'slices. Remove secondary captures from the folder.',
        )
    return header


def _frames_of(header: Any) -> list[_Frame]:
    """The slices of a file: of its functional groups, or the file itself."""
    shared = (header.get('SharedFunctionalGroupsSequence') or [None])[0]
    groups = header.get('PerFrameFunctionalGroupsSequence')
    if groups is None:
        return [_frame(header, _short(header), 0, [header])]
    frames = []
    for index, group in enumerate(groups):
        parts = [
            item
            for holder in (group, shared)
            for sequence in (
                'PlanePositionSequence',
                'PlaneOrientationSequence',
                'PixelMeasuresSequence',
                'PixelValueTransformationSequence',
            )
            for item in (holder is not None and holder.get(sequence)) or ()
        ]
        name = f'{_short(header)}, frame {index + 1}'
        frames.append(_frame(header, name, index, [*parts, header]))
    return frames


def _frame(header: Any, name: str, index: int, parts: list) -> _Frame:
    """Make a slice of the first of several places that state a fact."""

    def value(key: str) -> Any:
        found = (part.get(key) for part in parts)
        return next((v for v in found if v is not None and v != ''), None)

    place = {
        key: value(key)
        for key in ('PixelSpacing', 'ImageOrientationPatient', 'ImagePositionPatient')
    }
    sides = {key: header.get(key) for key in ('Rows', 'Columns')}
    lost = [key for key, found in {**sides, **place}.items() if found in (None, '')]
    if lost:
        raise CaseError(
            'no-geometry',
            f'{header.filename}: {", ".join(lost)} missing'
            + (f' ({name})' if len(parts) > 1 else '')
            + '; the place of the slice is unknown. Convert the series to NIfTI '
            'with a tool that knows its scanner.',
        )
    slope, intercept = value('RescaleSlope'), value('RescaleIntercept')
    return _Frame(
        name,
        header,
        index,
        spacing=np.asarray(place['PixelSpacing'], float),
        directions=np.asarray(place['ImageOrientationPatient'], float),
        position=np.asarray(place['ImagePositionPatient'], float),
        slope=1.0 if slope is None else float(slope),
        intercept=None if intercept is None else float(intercept),
        thickness=float(value('SliceThickness') or 0),
    )


def _short(header: Any) -> str:
    return Path(header.filename).name


def _drop_copies(headers: list, problems: list[Problem]) -> list:
    """Keep one of several files that hold the same image object."""
    kept: dict[str, Any] = {}
    copies = []
    for index, header in enumerate(headers):
        uid = str(header.get('SOPInstanceUID', '') or f'#{index}')
        other = kept.setdefault(uid, header)
        if other is header:
            continue
        same = header.PixelData == other.PixelData and header.get(
            'ImagePositionPatient'
        ) == other.get('ImagePositionPatient')
        if not same:
            raise CaseError(
                'duplicate-uid',
                f'{_short(other)} and {_short(header)} claim '
                'one SOPInstanceUID but differ; remove the wrong one.',
            )
        copies.append(_short(header))
    if copies:
        problems.append(
            warning(
                'duplicate-file',
                f'{len(copies)} file(s) are copies '
                f'of others and were left out: {", ".join(copies[:3])}',
            )
        )
    return list(kept.values())


def _check_uniform(frames: list[_Frame]) -> None:
    """Refuse a series that mixes grids or orientations."""
    facts = (
        ('orientation', lambda f: f.directions, _SAME_DIRECTION, 3),
        ('size (rows, columns)', lambda f: np.array(f.size), 0, 0),
        ('pixel spacing', lambda f: f.spacing, _SAME_SPACING, 4),
    )
    for what, fact, tolerance, digits in facts:
        groups: list[tuple[np.ndarray, list[str]]] = []
        for frame in frames:
            found = fact(frame)
            for known, names in groups:
                if np.abs(known - found).max() <= tolerance:
                    names.append(frame.name)
                    break
            else:
                groups.append((found, [frame.name]))
        if len(groups) > 1:
            groups.sort(key=lambda group: -len(group[1]))
            parts = '; '.join(
                f'{tuple((np.round(value, digits) + 0).tolist())}: '
                f'{len(names)} {"slice" if "frame" in names[0] else "file"}(s), '
                f'e.g. {names[0]}'
                for value, names in groups[:4]
            )
            raise CaseError(
                'mixed-series',
                f'the slices differ in {what}: {parts}. Put '
                'the parts into folders of their own with different '
                'SeriesInstanceUIDs, or remove the odd ones.',
            )


def _order(
    frames: list[_Frame], problems: list[Problem]
) -> tuple[list[_Frame], np.ndarray]:
    """Sort along the slice normal; check the steps.

    Returns:
        tuple: sorted frames; step vector from slice to slice, mm (LPS).
    """
    directions = frames[0].directions
    normal = np.cross(directions[:3], directions[3:])
    length = np.linalg.norm(normal)
    if not 0.99 < length < 1.01:
        raise CaseError(
            'bad-orientation',
            f'{frames[0].name}: orientation '
            f'{directions.tolist()} is not a pair of perpendicular unit '
            'vectors.',
        )
    normal /= length
    places = np.array([frame.position for frame in frames])
    heights = places @ normal
    order = np.argsort(heights, kind='stable')
    frames = [frames[index] for index in order]
    places, heights = places[order], heights[order]
    if len(frames) == 1:
        thick = frames[0].thickness
        problems.append(
            warning(
                'single-slice',
                'the series has one slice; its '
                f'spacing is taken from SliceThickness ({thick or 1:g} mm)',
            )
        )
        return frames, normal * (thick or 1.0)
    problems += _check_steps(frames, heights)
    _check_line(frames, places, heights)
    step = (places[-1] - places[0]) / (len(frames) - 1)
    return frames, step


def _check_steps(frames: list[_Frame], heights: np.ndarray) -> list[Problem]:
    """Refuse doubled, missing and unevenly spaced slices.

    Args:
        frames (list[_Frame]): Two or more, in order.
        heights (np.ndarray): Place of each along the normal, mm.

    Returns:
        list[Problem]: A warning where the steps vary a little.
    """
    steps = np.diff(heights)
    _check_doubles(frames, heights, steps)
    usual = float(np.median(steps))
    ratio = steps / usual
    wide = np.flatnonzero(ratio > 1.5)
    if len(wide):
        missing = int(np.rint(ratio[wide] - 1).sum())
        gaps = ', '.join(
            f'{heights[i]:.2f} to {heights[i + 1]:.2f} mm' for i in wide[:4]
        )
        raise CaseError(
            'missing-slices',
            f'about {missing} slice(s) missing: the usual '
            f'step is {usual:.3f} mm, found gaps at {gaps}. Copy the series '
            'again.',
        )
    uneven = np.flatnonzero(np.abs(ratio - 1) > 0.1)
    if len(uneven):
        where = uneven[0]
        raise CaseError(
            'uneven-spacing',
            f'slice steps run from {steps.min():.3f} to '
            f'{steps.max():.3f} mm (usual {usual:.3f}), first between '
            f'{heights[where]:.2f} and {heights[where + 1]:.2f} mm; expected '
            'one spacing. Volumes are never resampled on import: resample '
            'the series first.',
        )
    if np.abs(ratio - 1).max() > 0.01:
        return [
            warning(
                'spacing-jitter',
                f'slice steps vary from '
                f'{steps.min():.3f} to {steps.max():.3f} mm; the mean is '
                'used',
            )
        ]
    return []


def _check_doubles(
    frames: list[_Frame], heights: np.ndarray, steps: np.ndarray
) -> None:
    """Refuse several slices in one place."""
    tiny = np.flatnonzero(steps < 1e-3)
    if len(tiny):
        pairs = ', '.join(
            f'{frames[i].name} and {frames[i + 1].name} at {heights[i]:.2f} mm'
            for i in tiny[:3]
        )
        raise CaseError(
            'duplicate-position',
            f'{len(tiny)} slice position(s) occur more '
            f'than once: {pairs}. Several phases or reconstructions in one '
            'series must be separated first.',
        )


def _check_line(frames: list[_Frame], places: np.ndarray, heights: np.ndarray) -> None:
    """Refuse slices that lie beside the line through the first and the last."""
    share = (heights - heights[0]) / (heights[-1] - heights[0])
    beside = places - places[0] - share[:, None] * (places[-1] - places[0])
    distance = np.linalg.norm(beside, axis=1)
    worst = int(distance.argmax())
    pixel = float(frames[0].spacing.min())
    if distance[worst] > _SIDEWAYS * pixel:
        raise CaseError(
            'slices-shifted',
            f'{frames[worst].name} lies {distance[worst]:.2f} mm beside the line '
            f'through the other slices (pixel {pixel:.3g} mm); expected one stack. '
            'Parts of other reconstructions must be separated first.',
        )


def _pixels(frames: list[_Frame], problems: list[Problem]) -> np.ndarray:
    """Decode the slices ``(slices, rows, columns)`` and apply the rescale."""
    first = frames[0]
    is_ct = first.file.Modality == 'CT'
    if is_ct and first.intercept is None:
        problems.append(
            warning(
                'no-rescale',
                f'{first.name}: RescaleIntercept is missing; stored values are '
                'taken as HU',
            )
        )
    array = np.empty((len(frames), *first.size), np.float32)
    decoded = {}
    for place, frame in enumerate(frames):
        file = frame.file
        if id(file) not in decoded:
            decoded = {id(file): _decode_slices(file)}  # one file at a time
        stored = decoded[id(file)][frame.index]
        array[place] = stored.astype(np.float32) * frame.slope + (frame.intercept or 0)
        padding = file.get('PixelPaddingValue')
        if is_ct and padding is not None:
            array[place][stored == padding] = -1024
    return array


def _decode_slices(header: Any) -> np.ndarray:
    """Decode the stored values of a file ``(frames, rows, columns)``.

    They are values of a measurement: MONOCHROME1, which says how to show them,
    changes nothing (pictures are another matter: readers.dicom_picture).
    """
    stored = decode(header)
    if 'PerFrameFunctionalGroupsSequence' in header and stored.ndim == 3:
        return stored
    if stored.ndim != 2:
        raise CaseError(
            'not-grey',
            f'{header.filename}: pixel array of shape '
            f'{stored.shape}; expected (rows, columns).',
        )
    return stored[None]
