"""Which label file belongs to which DICOM series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medssl_mm.errors import UserError
from medssl_mm.importers.base import CaseError, files_of
from medssl_mm.importers.integrity import CORNER_ERROR
from medssl_mm.importers.naming import find_files
from medssl_mm.importers.readers import read_volume, suffix_of
from medssl_mm.importers.readers.dicom_series import Series
from medssl_mm.importers.readers.segmentation import (
    Description,
    describe_segmentation,
)


@dataclass
class SeriesLabels:
    """Labels of the series of a folder.

    Args:
        volumes (dict): Volume file by case id.
        segmentations (dict): DICOM segmentation by case id.
        segments (dict): Label of every segment by number, by file.
        notes (list[str]): What was found out by geometry, and what is not used.
    """

    volumes: dict[str, str] = field(default_factory=dict)
    segmentations: dict[str, str] = field(default_factory=dict)
    segments: dict[str, dict[int, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def match_labels(
    series: Mapping[str, Series], names: Mapping[str, Collection[str]], labels: str
) -> SeriesLabels:
    """Find the label file of each series.

    A volume file belongs to the case whose id it has as name. Under another
    name of a series (its folder, its UID) it belongs to the one series of that
    name, of several to the one on whose grid it lies. A DICOM segmentation
    belongs to the series that it names.

    Args:
        series (Mapping[str, Series]): By case id.
        names (Mapping[str, Collection[str]]): Further names, by case id.
        labels (str): Folder of label files, or one file.

    Raises:
        UserError: A label fits several series, a series several labels, or no
            label fits.
    """
    path = Path(labels)
    if not path.exists():
        raise UserError(f'label folder {labels} does not exist')
    stems, described = _sort_labels(path)
    found = SeriesLabels()
    owners: dict[Path, str] = {}
    for file, stem in stems.items():
        fitting = [stem] if stem in series else _named(stem, names)
        if path.is_file() and len(series) == 1:
            fitting = list(series)
        if len(fitting) > 1:
            fitting = [_by_grid(file, fitting, series, found.notes)]
        if fitting:
            owners[file] = fitting[0]
            found.volumes[fitting[0]] = str(file)
    for file, description in described.items():
        fitting = _marked(description, series)
        if len(fitting) > 1:
            raise _ambiguous(file, fitting, 'several have the UID that it names')
        if fitting:
            owners[file] = fitting[0]
            found.segments[str(file)] = description.segments
            found.segmentations[fitting[0]] = str(file)
    _check_owners(owners)
    in_order = {c: found.segmentations.get(c) for c in series}  # of the classes
    found.segmentations = {c: file for c, file in in_order.items() if file}
    unused = [file for file in (*stems, *described) if file not in owners]
    if not owners:
        raise _none_fits(path, unused, series)
    if unused:
        found.notes.append(
            f'{len(unused)} label file(s) belong to no series and are not used, e.g. '
            f'{unused[0].name}'
        )
    return found


def _sort_labels(path: Path) -> tuple[dict[Path, str], dict[Path, Description]]:
    """Volume files with their stems; DICOM segmentations."""
    stems: dict[Path, str] = {}
    described: dict[Path, Description] = {}
    for file in map(Path, files_of(str(path))) if path.is_file() else find_files(path):
        suffix = suffix_of(file.name)
        if suffix:
            stems[file] = file.name[: len(file.name) - len(suffix)]
            continue
        description = describe_segmentation(file)
        if description is not None:
            described[file] = description
    return stems, described


def _named(stem: str, names: Mapping[str, Collection[str]]) -> list[str]:
    return [case_id for case_id, known in names.items() if stem in known]


def _marked(description: Description, series: Mapping[str, Series]) -> list[str]:
    """Series that a segmentation names, and of those the ones whose images it does."""
    fitting = [
        case_id for case_id, item in series.items() if item.uid == description.series
    ]
    if len(fitting) < 2:
        return fitting
    exact = [
        case_id
        for case_id in fitting
        if not description.images.isdisjoint(s.uid for s in series[case_id].slices)
    ]
    if len(exact) != 1:
        exact = [
            case_id
            for case_id in exact or fitting
            if (series[case_id].patient, series[case_id].study)
            == (description.patient, description.study)
        ]
    return exact or fitting


def _by_grid(
    file: Path, fitting: Sequence[str], series: Mapping[str, Series], notes: list[str]
) -> str:
    """The only one of several series on whose grid a label lies."""
    try:
        array, affine, _ = read_volume(file)
    except CaseError:
        affine = None
    if affine is None:
        raise _ambiguous(file, fitting, 'it states no geometry')
    ends = [np.arange(2) * (length - 1) for length in array.shape]
    index = np.stack(np.meshgrid(*ends, indexing='ij'), -1).reshape(-1, 3)
    corners = index @ affine[:3, :3].T + affine[:3, 3]
    edge = float(np.sqrt((affine[:3, :3] ** 2).sum(0)).min())
    alike = [
        case_id
        for case_id in fitting
        if _same_corners(corners, series[case_id].corners(), CORNER_ERROR * edge)
        and sorted(array.shape) == sorted(series[case_id].shape)
    ]
    if len(alike) != 1:
        raise _ambiguous(file, fitting, f'{len(alike)} of them have its grid')
    notes.append(
        f'label {file.name} fits {len(fitting)} series by its name; it was given to '
        f'{alike[0]}, the only one on its grid'
    )
    return alike[0]


def _same_corners(
    one: NDArray[np.float64], other: NDArray[np.float64] | None, tolerance: float
) -> bool:
    """Whether two grids have the same corners, in whatever order."""
    if other is None:
        return False
    distance = np.linalg.norm(one[:, None] - other[None], axis=2)
    return all(float(np.max(np.min(distance, axis))) <= tolerance for axis in (0, 1))


def _ambiguous(file: Path, fitting: Sequence[str], why: str) -> UserError:
    return UserError(
        f'label {file} fits the series {" and ".join(fitting[:5])}'
        f'{" ..." if len(fitting) > 5 else ""}; {why}. One label belongs to one '
        'series: name it after its case id, e.g. '
        f'{fitting[0]}{suffix_of(file.name) or file.suffix}.'
    )


def _check_owners(owners: Mapping[Path, str]) -> None:
    files: dict[str, list[Path]] = defaultdict(list)
    for file, case_id in owners.items():
        files[case_id].append(file)
    for case_id, several in files.items():
        if len(several) > 1:
            raise UserError(
                f'{len(several)} label files fit series {case_id}: '
                f'{", ".join(map(str, several[:3]))}; leave one.'
            )


def _none_fits(
    path: Path, unused: Sequence[Path], series: Mapping[str, Series]
) -> UserError:
    first = next(iter(series))
    if path.is_file():
        return UserError(
            f'{path} is one label file for {len(series)} series; give a folder with '
            f'one file per series, named {first}.nii.gz and so on.'
        )
    names = ', '.join(file.name for file in unused[:3])
    return UserError(
        f'no label in {path} fits a series; found '
        f'{names or "no volume file and no DICOM segmentation"}, '
        f'expected names such as {first}.nii.gz'
    )
