"""The volumes within a DICOM series: by place, and by what tells them apart."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medssl_mm.importers.naming import digest_of
from medssl_mm.importers.readers.dicom_file import (
    GROUPS,
    frame_parts,
    read_tags,
    stated,
)

# Greatest difference of direction cosines, and of mm along the normal.
SAME_DIRECTION, SAME_PLACE = 1e-3, 1e-3
Item = TypeVar('Item')
Parts = list[tuple[str, list['Slice']]]
_SIEMENS_B, _PHILIPS_B, _GE_B = 0x0019100C, 0x20011003, 0x00431039
# What tells several volumes in one place apart, best first.
_FACTS: dict[str, tuple[str | int, ...]] = {
    'time': ('TemporalPositionIdentifier', 'TemporalPositionIndex'),
    'echo': ('EchoNumbers',),
    'te': ('EffectiveEchoTime', 'EchoTime'),
    'b': ('DiffusionBValue', _SIEMENS_B, _PHILIPS_B, _GE_B),
    'direction': ('DiffusionGradientOrientation',),
    'ti': ('InversionTime',),
    'phase': ('NominalPercentageOfCardiacPhase',),
    'type': ('ComplexImageComponent', 'FrameType', 'ImageType'),
    'acquisition': ('AcquisitionNumber', 'FrameAcquisitionNumber'),
    'kernel': ('ConvolutionKernel',),
    'stack': ('StackID',),
}
# Times of the images: they differ from slice to slice, their order counts.
_TIMES: tuple[tuple[str, ...], ...] = (
    ('FrameAcquisitionDateTime', 'AcquisitionDateTime', 'AcquisitionTime'),
    ('NominalCardiacTriggerDelayTime', 'TriggerTime'),
    ('ContentTime',),
)
_CREATORS = (0x00190010, 0x20010010, 0x00430010)  # of the private tags
_TAGS = (
    *GROUPS,
    *_CREATORS,
    *(key for keys in (*_FACTS.values(), *_TIMES) for key in keys),
)


@dataclass(frozen=True)
class Slice:
    """Where a slice is, as its header says (None: it does not).

    Args:
        path (str): File.
        frame (int, optional): Among those of the file; None where it has one.
        uid (str): SOP instance UID, or the path.
        reference (str): UID of the frame of reference; '' where unknown.
        size (tuple): Rows, columns.
        spacing (tuple, optional): Between rows, between columns, mm.
        directions (tuple, optional): Along a row, down a column.
        position (tuple, optional): Of the first pixel, mm (LPS).
    """

    path: str
    frame: int | None
    uid: str
    reference: str
    size: tuple[int, int]
    spacing: tuple[float, ...] | None
    directions: tuple[float, ...] | None
    position: tuple[float, ...] | None


def slices_of(path: str, header: Any) -> list[Slice]:
    """List the slices of a file, without a word on what it lacks."""
    many = GROUPS[1] in header
    return [
        Slice(
            path,
            index if many else None,
            str(header.get('SOPInstanceUID', '') or path),
            str(header.get('FrameOfReferenceUID', '') or ''),
            (int(header.Rows), int(header.Columns)),
            _numbers(stated(part, 'PixelSpacing'), 2),
            _numbers(stated(part, 'ImageOrientationPatient'), 6),
            _numbers(stated(part, 'ImagePositionPatient'), 3),
        )
        for index, part in enumerate(frame_parts(header))
    ]


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    try:
        found = tuple(float(number) for number in value)
    except (TypeError, ValueError):
        return None
    return found if len(found) == count else None


def placed(slices: Iterable[Slice]) -> bool:
    """Whether all slices say where they are."""
    return all(s.position is not None and s.directions is not None for s in slices)


def normal_of(item: Slice) -> NDArray:
    """Normal of a slice, mm (LPS). Shape: ``(3,)``."""
    row, column = np.reshape(np.array(item.directions, np.float64), (2, 3))
    return np.cross(row, column)


def split_volumes(slices: Sequence[Slice]) -> Parts:
    """Part the slices of one series into volumes.

    A volume has one frame of reference, one size, one orientation, and one
    image in every place. What several images in one place are is asked of
    their headers: time, echo, b-value, ... Where none tells them apart, they
    stay together, and :func:`.dicom.read_series` refuses them.

    Returns:
        list[tuple[str, list[Slice]]]: what each volume is called within the
        series ('' for the only one), its slices in the order of their files.
    """
    parts: Parts = [('', list(slices))]
    for split in (_by_reference, _by_size, _by_orientation, _by_fact):
        parts = [
            ('_'.join(filter(None, (name, more))), part)
            for name, items in parts
            for more, part in split(items)
        ]
    return parts


def _grouped(
    slices: Sequence[Slice], values: Sequence[Any], call: Callable[[Any], str]
) -> Parts:
    groups: dict[Hashable, list[Slice]] = defaultdict(list)
    for item, value in zip(slices, values):
        groups[value].append(item)
    if len(groups) < 2:
        return [('', list(slices))]
    return [(call(value), part) for value, part in groups.items()]


def _by_reference(slices: list[Slice]) -> Parts:
    values = [item.reference for item in slices]
    if len({*values} - {''}) < 2:  # files that have lost it are no others
        return [('', slices)]
    return _grouped(slices, values, lambda uid: f'reference-{digest_of(uid)}')


def _by_size(slices: list[Slice]) -> Parts:
    sizes = [item.size for item in slices]
    return _grouped(slices, sizes, lambda size: f'{size[0]}x{size[1]}')


def alike(
    items: Iterable[Item], fact: Callable[[Item], NDArray[Any]], tolerance: float
) -> list[tuple[NDArray[Any], list[Item]]]:
    """Group what differs from the first of its group by no more than a tolerance."""
    groups: list[tuple[NDArray[Any], list[Item]]] = []
    for item in items:
        found = fact(item)
        for known, members in groups:
            if np.abs(known - found).max() <= tolerance:
                members.append(item)
                break
        else:
            groups.append((found, [item]))
    return groups


def _by_orientation(slices: list[Slice]) -> Parts:
    """Part stacks of other directions; a turn from slice to slice is no stack."""
    if not placed(slices):
        return [('', slices)]
    ordered = sorted(slices, key=lambda s: (s.uid, s.frame or 0))
    stacks = alike(ordered, lambda s: np.array(s.directions), SAME_DIRECTION)
    if len(stacks) == 1 or all(len(members) == 1 for _, members in stacks):
        return [('', slices)]
    planes = [_plane(members[0]) for _, members in stacks]
    parts = []
    for plane, (_, members) in zip(planes, stacks):
        if planes.count(plane) > 1:
            plane += f'-{digest_of(members[0].uid)}'
        parts.append((plane, sorted(members, key=lambda s: (s.path, s.frame or 0))))
    return parts


def _plane(item: Slice) -> str:
    return ('sagittal', 'coronal', 'axial')[int(np.argmax(np.abs(normal_of(item))))]


def _by_fact(slices: list[Slice]) -> Parts:
    """Part images in one place by the fact, or the facts, that differ there."""
    places = _places(slices)
    if max(map(len, places)) == 1:
        return [('', slices)]
    headers = _headers(slices)
    facts = {
        name: [_value(header, keys) for header in headers]
        for name, keys in _FACTS.items()
    }
    for name, values in facts.items():
        if None not in values and _tell_apart(values, places):
            return _called(slices, {name: values})
    chosen: dict[str, list] = {}
    found: list[Any] = [() for _ in slices]
    for name, values in facts.items():
        more = [(*old, value) for old, value in zip(found, values)]
        if _variety(more, places) > _variety(found, places):
            chosen[name], found = values, more
    if chosen and _tell_apart(found, places):
        return _called(slices, chosen)
    for keys in _TIMES:
        order = _order(slices, [_value(h, keys) for h in headers], places)
        if order is not None:
            return _called(slices, {'time': order})
    return [('', slices)]


def _places(slices: Sequence[Slice]) -> list[list[int]]:
    """Indices of the slices by place; of copies of one image, the first."""
    if not placed(slices):
        return [[index] for index in range(len(slices))]
    normal = normal_of(slices[0])
    heights = np.array([s.position for s in slices], np.float64) @ normal
    places: list[list[int]] = []
    seen: set[tuple] = set()
    last = -np.inf
    for index in np.argsort(heights, kind='stable').tolist():
        image = slices[index].uid, slices[index].frame
        if image in seen:
            continue
        seen.add(image)
        if heights[index] - last > SAME_PLACE:
            places.append([])
        places[-1].append(index)
        last = heights[index]
    return places


def _headers(slices: Sequence[Slice]) -> list[list[Any]]:
    """What the headers say of each slice, most special first."""
    parts = {path: frame_parts(read_tags(path, _TAGS)) for path in _paths(slices)}
    return [parts[item.path][item.frame or 0] for item in slices]


def _paths(slices: Iterable[Slice]) -> list[str]:
    return list(dict.fromkeys(item.path for item in slices))


def _value(parts: Sequence[Any], keys: Sequence[str | int]) -> Hashable:
    """First of several tags that is stated, as text; None where none is."""
    for key in keys:
        found = stated(parts, key)
        if found is None or isinstance(found, bytes):
            continue
        if key == _GE_B:  # its first number carries flags above the b-value
            found = found if isinstance(found, (str, int, float)) else found[0]
            return f'{int(float(found)) % 100000}'
        if isinstance(found, (str, int, float)):
            return _short(found)
        return tuple(_short(value) for value in found)
    return None


def _short(value: Any) -> str:
    return str(value) if isinstance(value, str) else f'{float(value):g}'


def _variety(values: Sequence[Any], places: Sequence[Sequence[int]]) -> int:
    return sum(len({values[index] for index in place}) for place in places)


def _tell_apart(values: Sequence[Any], places: Sequence[Sequence[int]]) -> bool:
    """Whether values make volumes: one image per place, as many as lie there."""
    single = _variety(values, places) == sum(map(len, places))
    return single and len(set(values)) == max(map(len, places))


def _order(
    slices: Sequence[Slice], values: Sequence[Any], places: Sequence[Sequence[int]]
) -> list[str] | None:
    """Number the images of every place by time; None where that is no order."""
    times = [re.match(r'\d+(\.\d*)?', str(value)) for value in values]
    if None in times or len({len(place) for place in places}) > 1:
        return None
    if _variety(values, places) < sum(map(len, places)):
        return None
    number_of = {}
    for place in places:
        ordered = sorted(place, key=lambda i: float((times[i] or '0')[0]))
        for number, index in enumerate(ordered, 1):
            number_of[slices[index].uid, slices[index].frame] = str(number)
    return [number_of[item.uid, item.frame] for item in slices]


def _called(slices: Sequence[Slice], facts: Mapping[str, Sequence[Hashable]]) -> Parts:
    """Group slices by one or several facts, and call the groups after these."""

    def call(values: tuple) -> str:
        return '_'.join(
            f'{name}-{_text(value, set(facts[name]))}'
            for name, value in zip(facts, values)
        )

    return _grouped(slices, list(zip(*facts.values())), call)


def _text(value: Any, among: set) -> str:
    """A value in short; of several components, those that differ."""
    if not isinstance(value, tuple):
        return 'none' if value is None else value
    if all(re.fullmatch(r'[-+.e\d]+', part) for part in value):  # a direction
        return digest_of(' '.join(value))
    others = [other for other in among if isinstance(other, tuple)]
    differing = [
        part
        for index, part in enumerate(value)
        if any(other[index : index + 1] != (part,) for other in others)
    ]
    return '-'.join(differing) or 'none'
