"""Folders of CT or MR series in DICOM.

Names, birth dates, identifiers and UIDs of the headers are not stored: cases
are called after their folder, series that share one also after a short digest of
their UIDs, patients by a short digest of the patient identifier (which groups the
series of a patient; it is no protection against somebody who can guess the
identifier).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medssl_mm.errors import UserError
from medssl_mm.importers.base import (
    ERROR,
    CaseError,
    LoadedCase,
    SourceCase,
    warning,
)
from medssl_mm.importers.classes import class_names
from medssl_mm.importers.integrity import SHEAR_WARNING
from medssl_mm.importers.naming import (
    digest_of,
    find_patient,
    folded,
    safe_case_id,
)
from medssl_mm.importers.options import option, patients_option
from medssl_mm.importers.patients import PLACEHOLDERS, doubtful_patients
from medssl_mm.importers.readers import load_volume, to_canonical
from medssl_mm.importers.readers.dicom import read_series
from medssl_mm.importers.readers.dicom_series import Series, group_series
from medssl_mm.importers.readers.segmentation import read_segmentation
from medssl_mm.importers.readers.tilt import straighten
from medssl_mm.importers.series_labels import SeriesLabels, match_labels
from medssl_mm.importers.volumes import (
    VolumeDiscovery,
    VolumeImporter,
    add_label,
    units_of,
)
from medssl_mm.store.orientation import shear_of

TILTS = REFUSE, RESAMPLE, KEEP = 'refuse', 'resample', 'keep'


@dataclass(frozen=True)
class DICOMImporter(VolumeImporter):
    """Import every CT or MR series below a folder.

    Files of one series may lie in any order and under any name; a file may
    hold one slice, many (enhanced CT and MR) or a mosaic. Localizers and objects
    that are no CT or MR image (structure sets, reports, DICOMDIR) are skipped. A
    series of several volumes gives a case of each. One with missing, doubled or
    unevenly spaced slices, or without pixels, is refused by name; so is a tilted
    gantry, unless it is to be resampled or kept. Labels are DICOM segmentations,
    which name their series, or volume files (NIfTI and others) on the grid of
    their series; they are turned with it.
    """

    labels: str | None = option(
        'DICOM segmentations, or volume files named after case id, folder or '
        'series UID: their folder, or the one file of one series',
        metavar='PATH',
    )
    classes: str | None = option(  # type: ignore[misc, assignment]
        'names of the classes 1, 2, ... separated by commas, or a JSON file; '
        'default: the segments of the DICOM segmentations',
        flags=('--labels-file',),
    )
    patient_pattern: str | None = option(
        "its first group, searched in the series' folder, replaces the digest as "
        'patient id',
        metavar='REGEX',
    )
    patients: str | None = patients_option()
    modality: str | None = option(  # type: ignore[misc, assignment]
        'where a folder has both', choices=('CT', 'MR')
    )

    tilt: str | None = option(
        'series of a tilted gantry, whose slices lie askew: refuse them (default), '
        'resample them to right angles, or keep the sheared grid, on which distances '
        'in mm are wrong',
        choices=TILTS,
    )

    name = 'dicom'
    tells_rest = False
    layout = """\
DIR/**/<any file name>      one file per slice or of many frames; CT or MR images
                            of any number of series, grouped by SeriesInstanceUID
with --labels:
LABELS/<case id>.nii.gz     or named after the series' folder or UID; or
LABELS/<any file name>      DICOM segmentations (SEG) of the series"""

    def __post_init__(self) -> None:
        if self.tilt not in (None, *TILTS):
            raise UserError(f'tilt must be one of {TILTS}, got {self.tilt!r}')
        if self.modality not in (None, 'CT', 'MR'):
            raise UserError(f"modality must be 'CT' or 'MR', got {self.modality!r}")

    def discover(self, src: Path) -> VolumeDiscovery:
        """List the series below ``src``."""
        src = Path(src)
        series, skipped = group_series(src, self.modality)
        if not series:
            raise self.nothing_found(src, _skipped_text(skipped))
        kinds = sorted({found.modality for found in series})
        if len(kinds) > 1:
            raise UserError(
                f'{src} holds both CT and MR series; a store has one '
                'modality. Import twice, with --modality CT and --modality '
                'MR.'
            )
        named = _name_cases(series, src)
        by_id = {name.case_id: item for name, item in zip(named, series)}
        labels = SeriesLabels()
        if self.labels is not None:
            others = {name.case_id: name.others for name in named}
            labels = match_labels(by_id, others, self.labels)
        classes = self._class_names(labels)
        cases = [
            self._case(name, item, src, labels, classes)
            for name, item in zip(named, series)
        ]
        return self.found(
            cases,
            notes=[
                *([_skipped_text(skipped)] if skipped else []),
                *_split_text(series, named),
                *labels.notes,
                *self._doubts(series, named),
            ],
            classes=classes,
            palette=None,
            modality=kinds[0],
            units=units_of(kinds[0]),
        )

    def _doubts(self, series: Sequence[Series], named: Sequence[_Name]) -> list[str]:
        """What the headers leave open of the patients; names nobody."""
        if self.patients or self.patient_pattern:
            return []
        if len({name.series for name in named}) < 2:
            return []
        people = {item.patient.strip() for item in series}
        if len({item.study for item in series}) < 2 and '' not in people:
            return []  # one visit of one person
        said = {
            name.case_id: _patient_of(item, name)
            if item.patient.strip().lower() not in PLACEHOLDERS
            else item.patient.strip()
            for name, item in zip(named, series)
            if item.patient.strip()
        }
        return doubtful_patients(
            said,
            [name.case_id for name in named],
            where='the headers (PatientID)',
            alone='each study, or series without one,',
        )

    def _case(
        self,
        name: _Name,
        item: Series,
        src: Path,
        labels: SeriesLabels,
        classes: Sequence[str],
    ) -> SourceCase:
        """Describe one volume."""
        patient = _patient_of(item, name)
        extra: dict[str, Any] = dict(
            image_files=item.files, frames=item.frames, unread=item.unread
        )
        where = _relative(item, src)
        patient, problem = find_patient(self.patient_pattern, where, patient)
        if problem:
            extra['problem'] = problem
        segmentation = labels.segmentations.get(name.case_id)
        if segmentation:
            segments = labels.segments[segmentation]
            extra['class_of'] = _class_of(segmentation, segments, classes)
        return SourceCase(
            case_id=name.case_id,
            patient_id=patient,
            image=str(item.folder),
            label=segmentation or labels.volumes.get(name.case_id),
            extra=extra,
            name='' if where.replace('/', '_') in name.others else where,
        )

    def _class_names(self, labels: SeriesLabels) -> tuple[str, ...]:
        if self.classes:
            return class_names(self.classes)
        if labels.volumes:
            raise UserError(
                'there are labels but no class names; give --classes '
                'NAME1,NAME2,... (values 1, 2, ...) or --classes FILE.json'
            )
        names = [
            label
            for path in labels.segmentations.values()
            for _, label in sorted(labels.segments[path].items())
        ]
        return ('background', *dict.fromkeys(names))

    def load(self, case: SourceCase) -> LoadedCase:
        """Read one series and, where given, its label."""
        unread = case.extra['unread']
        lost = unread and (
            f'{len(unread)} file(s) beside the slices of this series cannot be read '
            f'and may belong to it, e.g. {unread[0]}; copy them again, or remove them '
            'if they are none.'
        )
        try:
            array, affine, problems = read_series(
                case.extra['image_files'], case.extra['frames']
            )
        except CaseError as error:
            if not lost:
                raise
            raise CaseError(error.code, f'{error.message} Besides, {lost}') from None
        if lost:
            problems.append(warning('unread-files', lost))
        loaded = to_canonical(case.image, array, affine, problems)
        if case.label is not None and 'class_of' in case.extra:
            label = read_segmentation(
                case.label, array.shape, affine, case.extra['class_of']
            )
            loaded.label = to_canonical(case.label, label, affine, []).image
        elif case.label is not None:
            add_label(loaded, load_volume(case.label, numbers=True))
        angle = shear_of(affine)
        if angle > SHEAR_WARNING and self.tilt in (None, REFUSE):
            raise CaseError(
                'sheared',
                f'{case.image}: the slices lie {angle:.1f} degrees askew (gantry '
                'tilt?); expected a grid of right angles. --tilt resample shifts them '
                'to one, --tilt keep stores them as they are (distances in mm are '
                'then wrong).',
            )
        bad = any(problem.severity == ERROR for problem in loaded.problems)
        if angle > SHEAR_WARNING and self.tilt == RESAMPLE and not bad:
            straighten(loaded, affine[:3, 2])
        return loaded


def _patient_of(item: Series, name: _Name) -> str:
    """Patient by a digest of what the headers say; else the series."""
    person = hashlib.sha256(item.person.encode()).hexdigest()[:10]
    return f'patient-{person}' if item.person else name.series


def _skipped_text(skipped: Counter[str]) -> str:
    if not skipped:
        return 'The folder has no files.'
    parts = ', '.join(f'{n} x {why}' for why, n in skipped.most_common(6))
    return f'Skipped: {parts}.'


def _relative(item: Series, src: Path) -> str:
    relative = item.folder.relative_to(src).as_posix()
    return relative if relative != '.' else src.resolve().name


@dataclass(frozen=True)
class _Name:
    """What a volume is called.

    Args:
        case_id (str): Its case.
        series (str): Its series; equal where the series is one volume.
        others (tuple[str]): Further names that a label may have, perhaps shared.
    """

    case_id: str
    series: str
    others: tuple[str, ...]


def _name_cases(series: Sequence[Series], src: Path) -> list[_Name]:
    """Name every volume after its folder, and what it is there.

    In a folder of several series each is called after its number and a digest
    of its UIDs, so that no further file gives its name to another one.
    """
    crowd: dict[Path, set] = defaultdict(set)
    for item in series:
        crowd[item.folder].add(item.identity)
    named = []
    for item in series:
        where = _relative(item, src)
        base = safe_case_id(where)
        numbered = f'{base}_series{item.number or 0:03d}'
        own = base
        if len(crowd[item.folder]) > 1:
            own = f'{numbered}_{_digest(item, where)}'
        case_id = safe_case_id(f'{own}_{item.part}' if item.part else own)
        others = (base, numbered, own, item.folder.name, item.uid)
        named.append(_Name(case_id, own, others))
    counts = Counter(folded(name.case_id) for name in named)
    for index, (name, item) in enumerate(zip(named, series)):
        if counts[folded(name.case_id)] > 1:  # folders such as a_b and a/b
            end = _digest(item, f'{_relative(item, src)} {item.part}')
            named[index] = replace(name, case_id=safe_case_id(f'{name.case_id}_{end}'))
    return named


def _digest(item: Series, where: str) -> str:
    uids = item.patient, item.study, item.uid or where
    return digest_of(' '.join(uids))


def _split_text(series: Sequence[Series], named: Sequence[_Name]) -> list[str]:
    """Say which series hold several volumes."""
    parts: dict[str, list[str]] = defaultdict(list)
    for name, item in zip(named, series):
        if item.part:
            parts[name.series].append(name.case_id)
    if not parts:
        return []
    first = next(iter(parts.values()))
    return [
        f'{len(parts)} series hold {sum(map(len, parts.values()))} volumes, each a '
        f'case of its own, e.g. {", ".join(first[:4])}{" ..." if first[4:] else ""}'
    ]


def _class_of(
    path: str, segments: Mapping[int, str], names: Sequence[str]
) -> dict[int, int]:
    """Class index of every segment of a file, by its label."""
    index_of = {name.casefold(): index for index, name in enumerate(names)}
    unknown = [label for label in segments.values() if label.casefold() not in index_of]
    if unknown:
        raise UserError(
            f'{path} has segments {", ".join(map(repr, segments.values()))}; the '
            f'classes are {", ".join(names)}: no class for '
            f'{", ".join(map(repr, unknown))}. Name them in --classes, or leave '
            '--classes out.'
        )
    return {number: index_of[label.casefold()] for number, label in segments.items()}
