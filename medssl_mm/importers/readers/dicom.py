"""CT and MR series in DICOM: one file per slice, or many frames in one file.

Slices are ordered by their position along the slice normal, never by
instance number or file name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import apply_modality_lut

from medssl_mm.importers.base import CaseError, Problem, warning
from medssl_mm.importers.readers.dicom_file import (
    check_pixel_data,
    decode,
    frame_parts,
    is_padding,
    number_of_frames,
    read_file,
    stated,
)
from medssl_mm.importers.readers.dicom_mosaic import Mosaic, is_mosaic, read_mosaic
from medssl_mm.importers.readers.dicom_parts import SAME_DIRECTION, alike

_SAME_SPACING = 1e-4  # mm within one series
_UNITS = {'CT': 'HU', 'MR': 'US'}  # 'US': unspecified
_SIDEWAYS = 0.5  # of a pixel, across the slice normal


@dataclass(frozen=True)
class _Frame:
    """One slice: its place, and where its pixels are."""

    name: str
    file: Any  # the data set that holds it
    index: int  # among the frames of that file
    size: tuple[int, int]  # rows, columns
    spacing: np.ndarray  # mm between rows, between columns
    directions: np.ndarray  # (6,) along a row, down a column
    position: np.ndarray  # (3,) mm, LPS
    slope: float
    intercept: float
    rescaled: bool  # whether both are stated
    unit: str  # RescaleType, that of the standard where it is not stated
    thickness: float
    mosaic: Mosaic | None = None


def read_series(
    files: Sequence[str], frames_of: Mapping[str, Sequence[int]] | None = None
) -> tuple[np.ndarray, np.ndarray, list[Problem]]:
    """Read the slices of one series into a volume.

    The value of a CT pixel is HU: stored value * slope + intercept, rounded;
    pixels that carry the declared padding value become air (-1024).

    Args:
        files (Sequence[str]): The files of one series, in any order: single
            slices, enhanced CT or MR objects of many frames, or a mosaic.
        frames_of (Mapping[str, Sequence[int]], optional): Frames of the volume,
            by file; of files that are not named, all. Defaults to None.

    Returns:
        tuple: array ``(columns, rows, slices)``, int16 for CT (MR: int16, or
        float32 where the rescaled values are not whole); affine ``(4, 4)`` to
        RAS+ world in mm; list of :class:`Problem` (warnings).

    Raises:
        CaseError: What is wrong with the series, with files and positions.
    """
    problems: list[Problem] = []
    headers = _drop_copies(_every(files, _read_slices), problems)
    frames = [frame for header in headers for frame in _frames_of(header)]
    if frames_of:
        kept = {(path, index) for path, part in frames_of.items() for index in part}
        frames = [
            frame
            for frame in frames
            if frame.file.filename not in frames_of
            or (frame.file.filename, frame.index) in kept
        ]
    for mosaic in {id(f.mosaic): f.mosaic for f in frames}.values():
        problems += mosaic.problems if mosaic else []
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


def _every(items: Sequence[Any], function: Callable[[Any], Any]) -> list[Any]:
    """Apply a function to all; the first error says how many there are.

    Raises:
        CaseError: One item or more cannot be used.
    """
    done, errors = [], []
    for item in items:
        try:
            done.append(function(item))
        except CaseError as error:
            errors.append(error)
    if not errors:
        return done
    first = errors[0]
    if len(errors) == 1:
        raise first
    raise CaseError(
        first.code,
        f'{len(errors)} of {len(items)} files of the series cannot be used, the first: '
        f'{first.message}',
    )


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
    check_pixel_data(header)
    kind = str(header.get('PhotometricInterpretation', 'MONOCHROME2'))
    if int(header.get('SamplesPerPixel', 1)) != 1 or kind == 'PALETTE COLOR':
        raise CaseError(
            'not-grey',
            f'{path}: a colour image ({kind}); expected grey CT or MR '
            'slices. Remove secondary captures from the folder.',
        )
    return header


def _frames_of(header: Any) -> list[_Frame]:
    """The slices of a file: of its functional groups, its tiles, or itself."""
    found = frame_parts(header)
    name = _short(header)
    if found == [[header]]:
        frame = _frame(header, name, 0, [header])
        return _tiles(frame) if is_mosaic(header) else [frame]
    return [
        _frame(header, f'{name}, frame {index + 1}', index, parts)
        for index, parts in enumerate(found)
    ]


def _tiles(frame: _Frame) -> list[_Frame]:
    """The slices of a mosaic."""
    mosaic = read_mosaic(frame.file, frame.spacing, frame.directions, frame.position)
    return [
        replace(
            frame,
            name=f'{frame.name}, tile {index + 1}',
            index=index,
            size=mosaic.size,
            position=mosaic.position + index * mosaic.step,
            mosaic=mosaic,
        )
        for index in range(mosaic.count)
    ]


def _frame(header: Any, name: str, index: int, parts: list) -> _Frame:
    """Make a slice of the first of several places that state a fact."""
    place = {
        key: stated(parts, key)
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
    rescale = {key: stated(parts, key) for key in ('RescaleSlope', 'RescaleIntercept')}
    slope, intercept = (
        default if value is None else float(_numbers(header, key, value, 1)[0])
        for (key, value), default in zip(rescale.items(), (1.0, 0.0))
    )
    if not slope:
        raise CaseError(
            'no-rescale',
            f'{header.filename}: RescaleSlope is 0, by which every pixel would have '
            'one value. Correct the header, or copy the file again.',
        )
    return _Frame(
        name,
        header,
        index,
        size=(int(header.Rows), int(header.Columns)),
        spacing=_numbers(header, 'PixelSpacing', place['PixelSpacing'], 2),
        directions=_numbers(
            header, 'ImageOrientationPatient', place['ImageOrientationPatient'], 6
        ),
        position=_numbers(
            header, 'ImagePositionPatient', place['ImagePositionPatient'], 3
        ),
        slope=slope,
        intercept=intercept,
        rescaled=None not in rescale.values(),
        unit=str(stated(parts, 'RescaleType') or _UNITS.get(header.Modality, '')),
        thickness=float(stated(parts, 'SliceThickness') or 0),
    )


def _numbers(header: Any, key: str, value: Any, count: int) -> NDArray[np.float64]:
    """Numbers of a tag.

    Raises:
        CaseError: They are none, or not as many as the standard has.
    """
    try:
        numbers = np.atleast_1d(np.asarray(value, np.float64))
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise CaseError(
            'bad-number',
            f'{header.filename}: {key} is {str(value)!r}, expected {count} number(s). '
            'Correct the header, or copy the file again.',
        )
    return numbers


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
    """Refuse a series whose slices differ in what one volume has once."""
    numbers = (
        ('orientation', lambda f: f.directions, SAME_DIRECTION, 3),
        ('size (rows, columns)', lambda f: np.array(f.size), 0, 0),
        ('pixel spacing', lambda f: f.spacing, _SAME_SPACING, 4),
    )
    for what, fact, tolerance, digits in numbers:
        groups = alike(frames, fact, tolerance)
        _refuse_parts(
            what,
            [
                (str(tuple((np.round(value, digits) + 0).tolist())), members)
                for value, members in groups
            ],
        )
    trivial = all(
        f.file.Modality != 'CT' and (f.slope, f.intercept) == (1, 0) for f in frames
    )
    words = (
        ('modality', lambda f: str(f.file.Modality)),
        (
            'photometric interpretation',
            lambda f: str(f.file.get('PhotometricInterpretation', 'MONOCHROME2')),
        ),
        ('unit (RescaleType)', lambda f: f.unit),
        (
            'RescaleSlope or RescaleIntercept',
            # Where nothing is rescaled, a missing statement says the same.
            lambda f: 'stated' if f.rescaled or trivial else 'missing',
        ),
    )
    for what, word in words:
        parts: dict[str, list[_Frame]] = {}
        for frame in frames:
            parts.setdefault(word(frame), []).append(frame)
        _refuse_parts(what, list(parts.items()))


def _refuse_parts(what: str, groups: list[tuple[str, list[_Frame]]]) -> None:
    if len(groups) < 2:
        return
    groups.sort(key=lambda group: -len(group[1]))
    parts = '; '.join(
        f'{value}: {len(members)} {"file" if _alone(members[0]) else "slice"}(s), '
        f'e.g. {members[0].name}'
        for value, members in groups[:4]
    )
    raise CaseError(
        'mixed-series',
        f'the slices differ in {what}: {parts}. Put the parts into folders of their '
        'own with different SeriesInstanceUIDs, or remove the odd ones.',
    )


def _alone(frame: _Frame) -> bool:
    """Whether a slice is its file."""
    return frame.name == _short(frame.file)


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
        facts = _differing(*(frames[i].file for i in (tiny[0], tiny[0] + 1)))
        raise CaseError(
            'duplicate-position',
            f'{len(tiny)} slice position(s) occur more than once: {pairs}. No time, '
            'echo, b-value, acquisition or other fact of the standard parts them into '
            f'volumes; the headers of the first two differ in {facts or "nothing"}. '
            'Put the volumes into folders with SeriesInstanceUIDs of their own.',
        )


def _differing(one: Any, other: Any) -> str:
    """What two headers say otherwise, but for UIDs and pixels.

    InstanceNumber is among it: the standard has it count images, and no more
    (PS3.3, C.7.6.1), so that it makes no volumes.
    """
    plain = [item for item in one if item.VR not in ('UI', 'SQ', 'OB', 'OW', 'UN')]
    words = [i.keyword for i in plain if i.keyword and other.get(i.keyword) != i.value]
    return ', '.join(words[:8])


def _check_line(frames: list[_Frame], places: np.ndarray, heights: np.ndarray) -> None:
    """Refuse slices that lie beside the line through the first and the last."""
    allowed = _SIDEWAYS * float(frames[0].spacing.min())
    slope = (places[-1] - places[0]) / (heights[-1] - heights[0])
    beside = places - places[0] - (heights - heights[0])[:, None] * slope
    if np.linalg.norm(beside, axis=1).max() <= allowed:
        return
    # Which slices are elsewhere: the line of the median slope, which they do not
    # turn (Theil-Sen; of a long series, 300 slices are enough).
    some = np.unique(np.linspace(0, len(frames) - 1, 300).astype(int))
    one, two = (some[index] for index in np.triu_indices(len(some), 1))
    rise = (heights[two] - heights[one])[:, None]
    slope = np.median((places[two] - places[one]) / rise, axis=0)
    beside = places - heights[:, None] * slope
    distance = np.linalg.norm(beside - np.median(beside, axis=0), axis=1)
    worst = int(distance.argmax())
    raise CaseError(
        'slices-shifted',
        f'{frames[worst].name} lies {distance[worst]:.2f} mm beside the line through '
        f'the other slices (pixel {allowed / _SIDEWAYS:.3g} mm), '
        f'{max(1, int((distance > allowed).sum()))} slice(s) in all do; expected one '
        'stack. Parts of other reconstructions must be separated first.',
    )


def _pixels(frames: list[_Frame], problems: list[Problem]) -> np.ndarray:
    """Decode the slices ``(slices, rows, columns)`` and apply the rescale."""
    first = frames[0]
    is_ct = first.file.Modality == 'CT'
    has_table = 'ModalityLUTSequence' in first.file
    if is_ct and not first.rescaled and not has_table:
        problems.append(
            warning(
                'no-rescale',
                f'{first.name}: RescaleSlope or RescaleIntercept is missing; stored '
                'values are taken as HU',
            )
        )
    elif is_ct and first.unit != 'HU':
        problems.append(
            warning(
                'rescale-type',
                f'{first.name}: a CT whose values are stated in {first.unit!r} '
                '(RescaleType), not HU; expected HU. Leave the series out if it is a '
                'map of another quantity.',
            )
        )
    array = np.empty((len(frames), *first.size), np.float32)
    places: dict[int, list[int]] = {}
    for place, frame in enumerate(frames):
        places.setdefault(id(frame.file), []).append(place)

    def fill(members: list[int]) -> None:  # one file at a time
        stored = _decode_slices(frames[members[0]].file, frames[members[0]].mosaic)
        for place in members:
            array[place] = _values(frames[place], stored[frames[place].index], is_ct)

    _every(list(places.values()), fill)
    return array


def _values(frame: _Frame, stored: np.ndarray, is_ct: bool) -> np.ndarray:
    """Values of a slice, float32: its own rescale or table, its own padding."""
    if 'ModalityLUTSequence' in frame.file:
        values = apply_modality_lut(stored, frame.file).astype(np.float32)
    else:
        values = stored.astype(np.float32) * frame.slope + frame.intercept
    if is_ct:
        values[is_padding(stored, frame.file)] = -1024
    return values


def _decode_slices(header: Any, mosaic: Mosaic | None) -> np.ndarray:
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
    return mosaic.split(stored) if mosaic else stored[None]
