"""What the importers of volumes share."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.importers import integrity
from medssl_mm.importers.base import (
    ERROR,
    Discovery,
    Importer,
    LoadedCase,
    Problem,
    SourceCase,
    check_unique,
    error,
    warning,
)
from medssl_mm.importers.naming import find_files
from medssl_mm.importers.patients import Person, patients_of
from medssl_mm.importers.readers import (
    load_volume,
    read_volume,
    source_files,
    to_canonical,
)
from medssl_mm.store import Split, StoreWriter, make_holdout, make_kfold


def units_of(modality: str) -> str:
    """Units of volumes that keep the values of their source."""
    return 'HU' if modality == 'CT' else 'arbitrary'


@dataclass(frozen=True)
class VolumeDiscovery(Discovery):
    """Volumes, as found.

    Args:
        modality (str): 'CT', 'MR', 'XR' or 'other'.
        units (str): 'HU' or 'arbitrary'.
        palette (list, optional): RGB per class. Defaults to None: made.
        channels (tuple[str]): Names of the channels of every slice; () or one:
            volumes are ``(Z, H, W)``.
    """

    modality: str = 'other'
    units: str = 'arbitrary'
    palette: list[list[int]] | None = None
    channels: tuple[str, ...] = ()

    def create_writer(
        self,
        out: str | Path,
        import_options: dict | None = None,
        overwrite: bool = False,
    ) -> StoreWriter:
        """Start or continue writing a slice store."""
        return StoreWriter.create(
            out,
            self.name,
            self.modality,
            self.units,
            self.classes,
            self.palette,
            import_options,
            overwrite,
            self.channels,
        )

    def stage(
        self,
        case: SourceCase,
        loaded: LoadedCase,
        writer: StoreWriter,
        stat: Sequence,
        digests: dict,
    ) -> tuple[Any, list[Problem]]:
        """Check a volume and hand it to the writer."""
        image, label, problems = integrity.check_case(
            loaded, self.units, self.classes, self.channels
        )
        if image is None or any(p.severity == ERROR for p in problems):
            return None, problems
        info = writer.add_case(
            case.case_id,
            image,
            label,
            patient_id=case.patient_id,
            labelled_slices=loaded.labelled_slices,
            spacing=loaded.spacing,
            affine=loaded.affine,
            source_affine=loaded.source_affine,
            source_shape=loaded.source_shape,
            source_orientation=loaded.source_orientation,
            source_file=case.image,
            label_source_file=case.label,
            source_name=case.name if case.name != case.case_id else '',
            source_stat=stat,
            warnings=[(p.code, p.message) for p in problems],
            **digests,
        )
        return info, problems

    def duplicate(self, original: str, same_patient: bool, how: str = '') -> Problem:
        """An error: one of the two files is too many, whoever it shows.

        A warning where axes, type or scale differ: which of the two is right is not
        for the import to say, so both are there, but one of them in no new split.
        """
        if how:
            return warning(
                'duplicate',
                f'image content equals that of case {original!r}, {how}: the same '
                'scan, which is in no new split a second time. Remove one file.',
            )
        return error(
            'duplicate',
            f'image content equals that of case {original!r}. Remove one file; '
            'the same scan on both sides of a split would be a leak.',
        )

    def near_copies(
        self, names: Sequence[str], gone: Collection[str], writer: Any
    ) -> dict[str, tuple[str, str]]:
        """Find volumes that are one another, but for axes, type or scale."""
        infos = [writer.read_case(name) for name in names]
        return integrity.find_near_copies(infos, writer.reader, gone)

    def classes_of(self, store: Any) -> NoReturn:
        """Refused: a volume has voxels of many classes."""
        raise UserError(
            f'--stratified goes by the class of an image; {self.name!r} has volumes'
        )


@dataclass(frozen=True)
class VolumeImporter(Importer):
    """Base class: a volume is a case.

    Attributes:
        modality (str): 'CT', 'MR', 'XR' or 'other'.
        units (str): 'HU' or 'arbitrary'.
        classes (tuple[str]): Class names, index 0 is the background.
        palette (list[list[int]]): One RGB colour per class.
    """

    modality: ClassVar[str] = 'other'
    units: ClassVar[str] = 'arbitrary'
    classes: ClassVar[tuple[str, ...]] = ('background',)
    palette: ClassVar[list | None] = None

    def found(self, cases: Iterable[SourceCase], **facts: Any) -> VolumeDiscovery:
        """Describe what was found; facts default to the class attributes."""
        known = dict(
            name=self.name,
            classes=self.classes,
            modality=self.modality,
            units=self.units,
            palette=self.palette,
        )
        notes = list(facts.pop('notes', ()))
        named = self.name_patients(check_unique(cases), notes)
        return VolumeDiscovery(named, notes=notes, **{**known, **facts})

    def name_patients(
        self, cases: Sequence[SourceCase], notes: list[str]
    ) -> list[SourceCase]:
        """Decide on the patients of cases that are their own so far."""
        people = [
            Person(
                case.case_id,
                case.image,
                None if case.patient_id == case.case_id else case.patient_id,
                case.name,
            )
            for case in cases
        ]
        patients = patients_of(self, people, notes)
        return [
            replace(case, patient_id=patients.get(case.case_id, case.patient_id))
            for case in cases
        ]


class VolumeFiles(VolumeImporter):
    """Base class: one file per volume or channel, and one per label.

    Cases of several channels name them in ``extra['channels']``, and their files
    (one of all, or one each) in ``extra['image_files']``.
    """

    modality = 'CT'
    units = 'HU'

    def load(self, case: SourceCase) -> LoadedCase:
        """Read image and label and turn them to the canonical axes."""
        if 'channels' in case.extra:
            loaded = load_channels(case.extra['image_files'], case.extra['channels'])
        else:
            loaded = load_volume(case.image)
        if case.label is not None:
            add_label(loaded, load_volume(case.label, numbers=True))
        return loaded

    def source_files(self, case: SourceCase) -> tuple[list[str], list[str]]:
        """The files, and those that detached headers point to."""
        images = case.extra.get('image_files', [case.image])
        label = source_files(case.label) if case.label is not None else []
        return [file for image in images for file in source_files(image)], label


def add_label(loaded: LoadedCase, label: LoadedCase) -> None:
    """Give a volume its label; adds what speaks against their belonging."""
    loaded.label = label.image
    loaded.problems += label.problems
    if (loaded.affine is None) != (label.affine is None):
        without = 'image' if loaded.affine is None else 'label'
        loaded.problems.append(
            error(
                'affine-mismatch',
                f'the {without} is of a format without geometry, so nothing tells '
                'how its axes run; give image and label in one format.',
            )
        )
    loaded.problems += integrity.check_geometry(
        integrity.grid_of(loaded.image), label.image.shape, loaded.affine, label.affine
    )


def load_channels(paths: Sequence[str], names: Sequence[str]) -> LoadedCase:
    """Read the channels of a volume: a file each, or a file with a fourth axis.

    Raises:
        CaseError: A channel cannot be read, or lies on another grid.
    """
    if len(paths) == 1:
        array, affine, problems = read_volume(paths[0], len(names))
        parts = [
            to_canonical(paths[0], array[..., index], affine, [])
            for index in range(len(names))
        ]
        parts[0].problems += problems
    else:
        parts = [load_volume(path) for path in paths]
    first = parts[0]
    for name, part in zip(names[1:], parts[1:]):
        first.problems += part.problems + integrity.check_geometry(
            first.image.shape,
            part.image.shape,
            first.affine,
            part.affine,
            f'channel {name}',
        )
    if len({part.image.shape for part in parts}) == 1:
        first.image = np.stack([part.image for part in parts], 1)
    return first


class NumberedVolumes(VolumeFiles):
    """Base class: a published layout, images and labels told by number and name.

    Attributes:
        image_name (str): Regular expression; its first group is the number.
        label_name (str): Likewise.
        case_name (str): Format of the case id.
    """

    image_name: ClassVar[str]
    label_name: ClassVar[str]
    case_name: ClassVar[str]

    def discover(self, src: Path) -> VolumeDiscovery:
        """List the cases; images and labels may lie in any sub-folders."""
        src = Path(src)
        problems: dict[str, tuple[str, str]] = {}
        images = self._numbered(src, self.image_name, problems)
        labels = self._numbered(src, self.label_name, problems)
        if not images:
            raise self.nothing_found(src)
        cases = []
        for number, path in images.items():
            case_id = self.case_name.format(number)
            label = str(labels[number]) if number in labels else None
            extra = dict(problem=problems[number]) if number in problems else {}
            cases.append(SourceCase(case_id, case_id, str(path), label, extra))
        stray = sorted(set(labels) - set(images))
        notes = [
            f'{len(stray)} label(s) without an image are not used, e.g. {labels[n]}'
            for n in stray[:1]
        ]
        return self.found(cases, notes=notes)

    def _numbered(
        self, src: Path, expression: str, problems: dict[str, tuple[str, str]]
    ) -> dict[str, Path]:
        """Files anywhere under ``src`` by the first group of a pattern, in any case."""
        found: dict[str, Path] = {}
        for path in find_files(src):
            match = re.fullmatch(expression, path.name, re.I)
            if not match:
                continue
            other = found.setdefault(match[1], path)
            if other != path:
                problems[match[1]] = (
                    'same-name',
                    f'{other} and {path} are both number {match[1]} '
                    f'of {self.name!r}; keep one of them.',
                )
        return found


def drawn_splits(name: str, cases: Sequence, val: float, test: float) -> list[Split]:
    """Shipped draws over all patients of a set: a hold-out, and five folds.

    Args:
        name (str): The data set; the protocols are ``<name>-<patients>`` and
            ``<name>-<patients>-5fold-fold<i>``.
        cases (Sequence[CaseInfo]): Cases of the store.
        val (float): Share of the patients for validation.
        test (float): Share of the patients for test.

    Returns:
        list[Split]: None of them for fewer than 5 patients.
    """
    patient_of = {case.case_id: case.patient_id for case in cases}
    patients = len(set(patient_of.values()))
    if patients < 5:
        return []
    protocol = f'{name}-{patients}'
    holdout = make_holdout(
        patient_of, patient_of, name, test=test, val=val, seed=0, protocol=protocol
    )
    return [
        holdout,
        *make_kfold(
            patient_of, patient_of, name, folds=5, seed=0, protocol=f'{protocol}-5fold'
        ),
    ]
