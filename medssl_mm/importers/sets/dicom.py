"""Folders of CT or MR series in DICOM.

Names, birth dates, identifiers and UIDs of the headers are not stored: cases
are called after their folder, patients by a short digest of the patient
identifier (which groups the series of a patient; it is no protection against
somebody who can guess the identifier).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medssl_mm.errors import UserError
from medssl_mm.importers.base import LoadedCase, SourceCase, files_of
from medssl_mm.importers.classes import class_names
from medssl_mm.importers.naming import find_files, match_patient, safe_case_id
from medssl_mm.importers.options import option
from medssl_mm.importers.readers import load_volume, suffix_of, to_canonical
from medssl_mm.importers.readers.dicom import Series, group_series, read_series
from medssl_mm.importers.readers.segmentation import (
    describe_segmentation,
    read_segmentation,
)
from medssl_mm.importers.volumes import (
    VolumeDiscovery,
    VolumeImporter,
    add_label,
    units_of,
)


@dataclass(frozen=True)
class _Labels:
    """Label files of a folder: volumes, and segmentations of series."""

    volumes: dict[str, str] = field(default_factory=dict)  # by case id
    segmentations: dict[str, str] = field(default_factory=dict)  # by case id
    segments: dict[str, dict[int, str]] = field(default_factory=dict)  # by file


@dataclass(frozen=True)
class DICOMImporter(VolumeImporter):
    """Import every CT or MR series below a folder.

    Files of one series may lie in any order and under any name; a file may
    hold one slice or many (enhanced CT and MR). Localizers and objects that
    are no CT or MR image (structure sets, reports, DICOMDIR) are skipped. A
    series with missing, doubled or unevenly spaced slices, with mixed
    orientations or sizes, or without pixels is refused by name. Labels are
    DICOM segmentations, which name their series, or volume files (NIfTI and
    others) on the grid of their series; they are turned with it, never
    resampled.
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
    modality: str | None = option(  # type: ignore[misc, assignment]
        'where a folder has both', choices=('CT', 'MR')
    )

    name = 'dicom'
    tells_rest = False
    layout = """\
DIR/**/<any file name>      one file per slice or of many frames; CT or MR images
                            of any number of series, grouped by SeriesInstanceUID
with --labels:
LABELS/<case id>.nii.gz     or named after the series' folder; or
LABELS/<any file name>      DICOM segmentations (SEG) of the series"""

    def __post_init__(self) -> None:
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
        by_id = _name_cases(series, src)
        labels = _match_labels(by_id, self.labels)
        names = self._class_names(labels)
        cases = []
        for case_id, item in by_id.items():
            where = _relative(item, src)
            person = hashlib.sha256(item.person.encode()).hexdigest()[:10]
            patient = f'patient-{person}' if item.person else case_id
            extra: dict = dict(image_files=item.files)
            segmentation = labels.segmentations.get(case_id)
            if segmentation:
                extra['class_of'] = _class_of(
                    segmentation, labels.segments[segmentation], names
                )
            cases.append(
                SourceCase(
                    case_id=case_id,
                    patient_id=match_patient(self.patient_pattern, where, patient),
                    image=str(item.folder),
                    label=segmentation or labels.volumes.get(case_id),
                    extra=extra,
                )
            )
        return self.found(
            cases,
            notes=[_skipped_text(skipped)] if skipped else [],
            classes=names,
            palette=None,
            modality=kinds[0],
            units=units_of(kinds[0]),
        )

    def _class_names(self, labels: _Labels) -> tuple[str, ...]:
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
        array, affine, problems = read_series(case.extra['image_files'])
        loaded = to_canonical(case.image, array, affine, problems)
        if case.label is not None and 'class_of' in case.extra:
            label = read_segmentation(
                case.label, array.shape, affine, case.extra['class_of']
            )
            loaded.label = to_canonical(case.label, label, affine, []).image
        elif case.label is not None:
            add_label(loaded, load_volume(case.label))
        return loaded


def _skipped_text(skipped: Counter[str]) -> str:
    if not skipped:
        return 'The folder has no files.'
    parts = ', '.join(f'{n} x {why}' for why, n in skipped.most_common(6))
    return f'Skipped: {parts}.'


def _relative(item: Series, src: Path) -> str:
    relative = item.folder.relative_to(src).as_posix()
    return relative if relative != '.' else src.resolve().name


def _name_cases(series: Sequence[Series], src: Path) -> dict[str, Series]:
    """Give every series a case id made from its folder."""
    crowd = Counter(item.folder for item in series)
    used: Counter[str] = Counter()
    named = {}
    for item in series:
        base = safe_case_id(_relative(item, src))
        if crowd[item.folder] > 1:
            base += f'_series{item.number or 0:03d}'
        used[base] += 1
        named[base if used[base] == 1 else f'{base}_{used[base]}'] = item
    return named


def _match_labels(series: Mapping[str, Series], labels: str | None) -> _Labels:
    """Find the label file of each series."""
    if labels is None:
        return _Labels()
    path = Path(labels)
    if not path.exists():
        raise UserError(f'label folder {labels} does not exist')
    by_stem, by_uid, segments = _sort_labels(path)
    first = next(iter(series))
    if path.is_file() and by_stem:
        if len(series) > 1:
            raise UserError(
                f'{labels} is one label file for {len(series)} series; give '
                f'a folder with one file per series, named {first}.nii.gz and so on.'
            )
        return _Labels(volumes={first: str(path)})
    volumes: dict[str, str] = {}
    segmentations: dict[str, str] = {}
    owner: dict[Path, str] = {}
    for case_id, item in series.items():
        names = {case_id, item.folder.name, item.uid}
        hits = [path for name in sorted(names) for path in by_stem[name]]
        marks = by_uid[item.uid]
        if len(hits) + len(marks) > 1:
            raise UserError(
                f'{len(hits) + len(marks)} label files fit series {case_id}: '
                f'{", ".join(map(str, [*hits, *marks][:3]))}; leave one.'
            )
        for hit in (*hits, *marks):
            other = owner.setdefault(hit, case_id)
            if other != case_id:
                raise UserError(
                    f'label {hit} fits the series {other} and {case_id}; name the '
                    'labels after the case ids.'
                )
            (segmentations if marks else volumes)[case_id] = str(hit)
    if not owner:
        found = [
            p.name for paths in (*by_stem.values(), *by_uid.values()) for p in paths
        ]
        raise UserError(
            f'no label in {labels} fits a series; found '
            f'{", ".join(found[:3]) or "no volume file and no DICOM segmentation"}, '
            f'expected names such as {first}.nii.gz'
        )
    return _Labels(volumes, segmentations, segments)


def _sort_labels(
    folder: Path,
) -> tuple[dict[str, list[Path]], dict[str, list[Path]], dict[str, dict[int, str]]]:
    """Label files by stem, segmentations by series UID, their segments."""
    by_stem, by_uid = defaultdict(list), defaultdict(list)
    segments: dict[str, dict[int, str]] = {}
    for path in (
        map(Path, files_of(str(folder))) if folder.is_file() else find_files(folder)
    ):
        suffix = suffix_of(path.name)
        if suffix:
            by_stem[path.name[: len(path.name) - len(suffix)]].append(path)
            continue
        described = describe_segmentation(path)
        if described is not None:
            uid, segments[str(path)] = described
            by_uid[uid].append(path)
    return by_stem, by_uid, segments


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
