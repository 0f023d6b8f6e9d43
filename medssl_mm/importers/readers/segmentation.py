"""DICOM segmentation objects (SEG), put on the grid of the series they mark.

A segmentation may leave out frames without a mark and may hold the others in
any order: each frame is placed by its own position. No more is asked of the
headers than that takes (highdicom, for one, refuses files without thickness).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medssl_mm.importers.base import CaseError
from medssl_mm.importers.readers.dicom_file import read_file, read_tags

_TOLERANCE = 0.05  # voxels that a frame may lie off the grid of the series


@dataclass(frozen=True)
class Description:
    """What a segmentation is of.

    Args:
        series (str): UID of the series that it marks; '' where not stated.
        images (frozenset[str]): UIDs of its images that it names.
        patient (str): Patient identifier.
        study (str): Study UID.
        segments (dict[int, str]): Label by segment number.
    """

    series: str
    images: frozenset[str]
    patient: str
    study: str
    segments: dict[int, str]


def describe_segmentation(path: str | Path) -> Description | None:
    """Tell what a segmentation is of.

    Args:
        path (str | Path): Any file.

    Returns:
        Description | None: None when the file is no DICOM segmentation.
    """
    tags = (
        *('Modality', 'PatientID', 'StudyInstanceUID'),
        *('SegmentSequence', 'ReferencedSeriesSequence'),
    )
    header = read_tags(path, tags)
    if header is None or header.get('Modality') != 'SEG':
        return None
    series = (header.get('ReferencedSeriesSequence') or [{}])[0]
    images = series.get('ReferencedInstanceSequence') or ()
    return Description(
        str(series.get('SeriesInstanceUID', '') or ''),
        frozenset(str(item.get('ReferencedSOPInstanceUID', '')) for item in images),
        str(header.get('PatientID', '') or ''),
        str(header.get('StudyInstanceUID', '') or ''),
        {
            int(item.SegmentNumber): str(item.get('SegmentLabel', '')).strip()
            for item in header.get('SegmentSequence') or ()
            if int(item.SegmentNumber)  # a label map may describe its background
        },
    )


def read_segmentation(
    path: str | Path,
    shape: tuple[int, ...],
    affine: np.ndarray,
    class_of: Mapping[int, int],
) -> np.ndarray:
    """Read a segmentation as a label on a given grid.

    Args:
        path (str | Path): DICOM SEG file, binary or label map; fractional
            only with the values 0 and 1.
        shape (tuple[int]): Grid of the series, ``(I, J, K)``.
        affine (np.ndarray): ``(4, 4)``, its voxel index to RAS+ world, mm.
        class_of (Mapping[int, int]): Class index by segment number.

    Returns:
        np.ndarray: ``(I, J, K)`` uint8; 0 where no segment is.

    Raises:
        CaseError: Unreadable, on another grid, or segments that overlap.
    """
    try:
        found = read_file(str(path))
        pixels = np.asarray(found.pixel_array)
    except Exception as error:  # many kinds; each means the file is bad
        raise CaseError(
            'unreadable',
            f'{path}: not a readable DICOM segmentation '
            f'({type(error).__name__}: {str(error)[:160]}).',
        ) from None
    pixels = pixels.reshape(-1, found.Rows, found.Columns)
    kind = str(found.SegmentationType)
    if kind == 'FRACTIONAL':
        pixels = _binary(path, pixels, int(found.MaximumFractionalValue))
    lps = np.diag([-1.0, -1, 1, 1]) @ np.asarray(affine, float)
    label = np.zeros(shape, np.uint8)
    shared = found.SharedFunctionalGroupsSequence[0]
    for index, group in enumerate(found.PerFrameFunctionalGroupsSequence):
        marks = _classes(kind, pixels[index], group, shared, class_of)
        rows, columns = np.nonzero(marks)
        if len(rows):
            where = f'{path}, frame {index + 1}'
            voxels = _voxels(where, group, shared, lps, rows, columns, shape)
            _mark(where, label, voxels, marks[rows, columns])
    return label


def _classes(
    kind: str, pixels: np.ndarray, group: Any, shared: Any, class_of: Mapping[int, int]
) -> np.ndarray:
    """Class indices ``(rows, columns)`` of one frame."""
    if kind == 'LABELMAP':
        marks = np.zeros(pixels.shape, np.uint8)
        for number, value in class_of.items():
            marks[pixels == number] = value
        return marks
    segment = _part(group, shared, 'SegmentIdentificationSequence')
    return (pixels != 0) * np.uint8(class_of[int(segment.ReferencedSegmentNumber)])


def _part(group: Any, shared: Any, name: str) -> Any:
    for holder in (group, shared):
        if holder.get(name):
            return holder.get(name)[0]
    raise CaseError('no-geometry', f'the segmentation has no {name}')


def _binary(path: str | Path, pixels: np.ndarray, highest: int) -> np.ndarray:
    between = (pixels != 0) & (pixels != highest)
    if between.any():
        raise CaseError(
            'label-not-integer',
            f'{path}: a fractional segmentation with {int(between.sum())} values '
            'between 0 and 1; expected a binary one or a label map.',
        )
    return pixels


def _voxels(
    where: str,
    group: Any,
    shared: Any,
    lps: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    shape: tuple[int, ...],
) -> np.ndarray:
    """Voxel indices ``(N, 3)`` of the marked pixels of one frame."""
    position = _part(group, shared, 'PlanePositionSequence').ImagePositionPatient
    directions = np.asarray(
        _part(group, shared, 'PlaneOrientationSequence').ImageOrientationPatient, float
    )
    spacing = np.asarray(
        _part(group, shared, 'PixelMeasuresSequence').PixelSpacing, float
    )
    world = (
        np.asarray(position, float)
        + columns[:, None] * directions[:3] * spacing[1]
        + rows[:, None] * directions[3:] * spacing[0]
    )
    exact = np.c_[world, np.ones(len(world))] @ np.linalg.inv(lps).T
    voxels = np.rint(exact[:, :3]).astype(int)
    off = float(np.abs(exact[:, :3] - voxels).max())
    if off > _TOLERANCE or len(np.unique(voxels, axis=0)) < len(voxels):
        raise CaseError(
            'affine-mismatch',
            f'{where}: its pixels lie up to {off:.2g} voxels off the grid of the '
            f'series (spacing {spacing.tolist()} mm, position '
            f'{[round(float(v), 3) for v in position]}). Resample the segmentation '
            'to the series (nearest neighbour), or pair it with the series it was '
            'drawn on.',
        )
    outside = ((voxels < 0) | (voxels >= np.array(shape))).any(1)
    if outside.any():
        raise CaseError(
            'shape-mismatch',
            f'{where}: {int(outside.sum())} marked pixels lie outside the '
            f'{tuple(shape)} voxels of the series, e.g. at '
            f'{voxels[outside][0].tolist()}. Pair it with the series it was drawn '
            'on.',
        )
    return voxels


def _mark(
    where: str, label: np.ndarray, voxels: np.ndarray, values: np.ndarray
) -> None:
    place = tuple(voxels.T)
    other = (label[place] != 0) & (label[place] != values)
    if other.any():
        raise CaseError(
            'label-overlap',
            f'{where}: {int(other.sum())} voxels belong to class '
            f'{int(values[other][0])} and to class '
            f'{int(label[place][other][0])}; a label has one class per voxel. '
            'Separate the segments, or give them one class.',
        )
    label[place] = values
