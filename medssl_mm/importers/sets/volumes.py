"""Volumes of one's own, one file each, in any format that we read."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from medssl_mm.errors import UserError
from medssl_mm.importers.base import SourceCase
from medssl_mm.importers.classes import class_names
from medssl_mm.importers.description import (
    DESCRIPTION,
    Description,
    modality_of,
    read_description,
)
from medssl_mm.importers.naming import by_wildcard, find_patient, safe_case_id
from medssl_mm.importers.options import option, patient_option, patients_option
from medssl_mm.importers.readers import VOLUME_SUFFIXES, check_reader, suffix_of
from medssl_mm.importers.volumes import VolumeDiscovery, VolumeFiles, units_of

# (images, labels), without suffix: tried in this order when no glob is given.
FIRST_CHANNEL = '_0000'
FOLDERS = (
    (f'imagesTr/*{FIRST_CHANNEL}', 'labelsTr/*'),
    ('imagesTr/*', 'labelsTr/*'),
    ('images/*', 'labels/*'),
)


@dataclass
class _Pairs:
    """Images and labels by what pairs them, and what is wrong with some."""

    images: dict[str, list[Path]] = field(default_factory=dict)
    labels: dict[str, Path] = field(default_factory=dict)
    problems: dict[str, tuple[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def put(self, found: dict[str, Path], key: str, path: Path) -> None:
        """Take a file; a second one of a key leaves its case out."""
        if found.setdefault(key, path) != path:
            self.problems[key] = (
                'same-name',
                f'{found[key]} and {path} cannot be told apart, both give {key!r}; '
                'keep one of them, or choose by --images and --labels.',
            )


@dataclass(frozen=True)
class VolumesImporter(VolumeFiles):
    """A folder of volumes and, by choice, labels.

    Images and labels are paired by what the wildcards of their globs match:
    ``img/img*.mha`` and ``label/label*.nrrd`` pair ``0007`` with ``0007``;
    ``*/ct.nii.gz`` and ``*/seg.nii.gz`` pair by folder. A ``dataset.json``
    (nnU-Net, Decathlon) gives classes, modality and channels: ``CASE_0000``,
    ``CASE_0001`` ..., or the fourth axis of a NIfTI file; its key ``dataset`` lists
    the files of every case, in any place.
    """

    images: str | None = option('images, relative to --src', metavar='GLOB')
    labels: str | None = option('labels, relative to --src', metavar='GLOB')
    classes: str | None = option(  # type: ignore[misc, assignment]
        'names of the classes 1, 2, ... separated by commas, or a JSON file; '
        'default: dataset.json in --src',
        flags=('--labels-file',),
    )
    modality: str | None = option(  # type: ignore[misc, assignment]
        'CT means Hounsfield units; default: as dataset.json says, else CT',
        choices=('CT', 'MR', 'XR', 'other'),
    )
    channels: str | None = option(
        'names of the channels of every volume, separated by commas; --images then '
        "holds {channel}: '*/{channel}.nii.gz' (default: dataset.json)",
        metavar='NAMES',
    )
    patient_pattern: str | None = patient_option(
        '; default: as BIDS, ACDC, TCIA and nnU-Net name them, else one per case'
    )
    patients: str | None = patients_option()

    name = 'volumes'
    guesses_patients = True
    suffixes: ClassVar[tuple[str, ...]] = VOLUME_SUFFIXES
    layout = """\
    <src>/images/CASE.mha         <src>/labels/CASE.mha
or  <src>/imagesTr/CASE_0000.nrrd  <src>/labelsTr/CASE.nrrd (_0001: channel 2)
or  any other, by globs relative to <src>:
    --images 'img/img*.nrrd' --labels 'label/label*.nrrd'
formats: .nii.gz .nii .nrrd .nhdr .mha .mhd .tiff .tif (.tif: pages are
slices, no geometry); labels may be missing for some or all images"""

    def __post_init__(self) -> None:
        if self.labels and not self.images:
            raise UserError('--labels needs --images')

    def discover(self, src: Path) -> VolumeDiscovery:
        """List the cases."""
        src = Path(src)
        said = read_description(src)
        names = self._channel_names(said)
        pairs = self._pair(src, names, said)
        notes = pairs.notes
        stray = sorted(set(pairs.labels) - set(pairs.images))
        if stray:
            notes.append(
                f'{len(stray)} label(s) without an image are not used, e.g. '
                f'{pairs.labels[stray[0]]}'
            )
        images = [path for paths in pairs.images.values() for path in paths]
        suffixes = set(map(self._suffix, [*images, *pairs.labels.values()]))
        for suffix in suffixes - {''}:  # others are reported with their case
            check_reader(suffix)
        notes += said.compare(src, len(pairs.images), images)
        notes += self._overridden(said)
        modality = self.modality or modality_of(names)
        labelled = bool(set(pairs.labels) & set(pairs.images))
        return self.found(
            [self._case(src, key, pairs, names) for key in pairs.images],
            notes=notes,
            classes=self._class_names(said, labelled),
            palette=None,
            modality=modality,
            units=units_of(modality),
            channels=names if len(names) > 1 else (),
        )

    def _case(
        self, src: Path, key: str, pairs: _Pairs, names: tuple[str, ...]
    ) -> SourceCase:
        paths = pairs.images[key]
        name = key or self._stem(paths[0])
        case_id = safe_case_id(name)
        inside = paths[0].is_relative_to(src)  # dataset.json may list any place
        relative = (paths[0].relative_to(src) if inside else paths[0]).as_posix()
        patient, problem = find_patient(self.patient_pattern, relative, case_id)
        extra: dict[str, Any] = {}
        if len(names) > 1:
            extra = dict(channels=names, image_files=[str(path) for path in paths])
        problem = pairs.problems.get(key, problem)
        if problem:
            extra['problem'] = problem
        label = str(pairs.labels[key]) if key in pairs.labels else None
        return SourceCase(case_id, patient, str(paths[0]), label, extra, name)

    def _overridden(self, said: Description) -> list[str]:
        """What the options say otherwise than ``dataset.json``."""
        notes = []
        named = modality_of(said.channels)
        if said.channels and self.modality not in (None, named):
            notes.append(
                f'--modality {self.modality} is used; {DESCRIPTION} says '
                f'{", ".join(said.channels)} ({named})'
            )
        if said.cases and self.images:
            notes.append(
                f'--images is used; the {len(said.cases)} cases that {DESCRIPTION} '
                'lists ("dataset") are not'
            )
        if said.classes and self.classes:
            names = class_names(self.classes)
            if names != said.classes:
                notes.append(
                    f'--classes are used ({", ".join(names[1:])}); {DESCRIPTION} says '
                    f'{", ".join(said.classes[1:])}'
                )
        return notes

    def _channel_names(self, said: Description) -> tuple[str, ...]:
        if not self.channels:
            return said.channels
        names = tuple(name.strip() for name in self.channels.split(','))
        if len(set(names)) < len(names) or not all(names):
            raise UserError(f'--channels {self.channels!r}: the names must differ')
        return names

    def _suffix(self, path: Path) -> str:
        return suffix_of(path.name, self.suffixes)

    def _stem(self, path: Path) -> str:
        return path.name[: len(path.name) - len(self._suffix(path))]

    def _pair(self, src: Path, names: tuple[str, ...], said: Description) -> _Pairs:
        """Files of the images, one or one per channel, and labels, by key."""
        pairs = _Pairs()
        if self.images:
            self._pair_globs(pairs, src, self.images, names)
            return pairs
        if said.cases:
            self._pair_listed(pairs, src, said, names)
            return pairs
        for folders in FOLDERS:
            image_folder, label_folder = folders
            found = self._in_folder(src, image_folder, pairs)
            if found:
                break
        else:
            raise self.nothing_found(
                src, f'{DESCRIPTION} says {said.ending}.' if said.ending else ''
            )
        pairs.images = {key: [path] for key, path in found.items()}
        if image_folder.endswith(FIRST_CHANNEL):
            self._add_channels(pairs, src, image_folder.partition('/')[0], names)
        pairs.labels = self._in_folder(src, label_folder, pairs)
        return pairs

    def _pair_listed(
        self, pairs: _Pairs, src: Path, said: Description, names: tuple[str, ...]
    ) -> None:
        """Take the cases that ``dataset.json`` lists, wherever their files are."""
        for key, (images, label) in said.cases.items():
            pairs.images[key] = [src / name for name in images]
            if label:
                pairs.labels[key] = src / label
            if len(images) not in (1, len(names)):
                pairs.problems[key] = (
                    'missing',
                    f'{DESCRIPTION} lists {len(images)} images for case {key!r}; '
                    f'expected one per channel ({", ".join(names) or "not named"}).',
                )

    def _add_channels(
        self, pairs: _Pairs, src: Path, folder: str, names: tuple[str, ...]
    ) -> None:
        """Give every case its further channels; say which are not used."""
        further: dict[int, list[Path]] = defaultdict(list)
        for path in by_wildcard(src, f'{folder}/*', self._suffix_taken).values():
            key, _, number = self._stem(path).rpartition('_')
            if key in pairs.images and re.fullmatch(r'\d{4}', number) and int(number):
                further[int(number)].append(path)
        used = range(1, len(names))
        if any(number in further for number in used):
            for key, paths in pairs.images.items():
                files = {self._stem(p): p for n in used for p in further[n]}
                # What is missing is reported with the name that it has there.
                paths += [
                    files.get(f'{key}_{n:04d}', self._sibling(paths[0], n))
                    for n in used
                ]
        else:
            used = range(0)
        unused = {n: paths for n, paths in further.items() if paths and n not in used}
        if unused:
            count = sum(map(len, unused.values()))
            pairs.notes.append(
                f'{count} file(s) of further channels '
                f'({", ".join(f"_{n:04d}" for n in sorted(unused))}) are not imported, '
                f'e.g. {unused[min(unused)][0]}: name all channels by --channels, or '
                f'by channel_names in {DESCRIPTION}'
            )

    def _sibling(self, path: Path, number: int) -> Path:
        stem = self._stem(path).removesuffix(FIRST_CHANNEL)
        return path.with_name(f'{stem}_{number:04d}{self._suffix(path)}')

    def _pair_globs(
        self, pairs: _Pairs, src: Path, pattern: str, names: tuple[str, ...]
    ) -> None:
        patterns = [pattern]
        if '{channel}' in pattern:
            if not names:
                raise UserError(f'--images {pattern!r} needs --channels NAME1,NAME2')
            patterns = [pattern.replace('{channel}', name) for name in names]
        parts = [self._by_key(src, one, pairs) for one in patterns]
        if not all(parts):
            empty = next(one for one, part in zip(patterns, parts) if not part)
            raise self.nothing_found(src, f'--images {empty!r} matches nothing.')
        for key in {key: None for part in parts for key in part}:
            pairs.images[key] = [part[key] for part in parts if key in part]
            lost = [one for one, part in zip(patterns, parts) if key not in part]
            if lost:
                pairs.problems[key] = (
                    'missing',
                    f'case {key!r} has no file for {", ".join(lost)} under {src}; '
                    'every case must have all channels.',
                )
        pairs.labels = self._by_key(src, self.labels, pairs) if self.labels else {}
        if self.labels and not set(pairs.labels) & set(pairs.images):
            have = f'e.g. {sorted(pairs.labels)[0]!r}' if pairs.labels else 'none'
            raise UserError(
                f'no label under {src} belongs to an image: the wildcards of '
                f'--images match e.g. {sorted(pairs.images)[0]!r}, those of --labels '
                f'{have}. The parts matched by * must be equal for a pair.'
            )

    def _in_folder(self, src: Path, pattern: str, pairs: _Pairs) -> dict[str, Path]:
        """Files of every suffix, in any case, by what the wildcard matches."""
        folder, name = pattern.split('/')
        end = name.lstrip('*')
        found: dict[str, Path] = {}
        for path in by_wildcard(src, f'{folder}/*', self._suffix_taken).values():
            stem = self._stem(path)
            if stem.endswith(end):
                pairs.put(found, stem[: len(stem) - len(end)], path)
        return found

    def _by_key(self, src: Path, pattern: str, pairs: _Pairs) -> dict[str, Path]:
        """Files that match a glob, by what its wildcards matched."""
        found: dict[str, Path] = {}
        rivals: dict[tuple[str, ...], list[Path]] = {}
        matched = by_wildcard(src, pattern, self._suffix_taken, rivals)
        for parts, path in matched.items():
            key = '_'.join(part for part in parts if part)
            for same in rivals.get(parts, [path]):
                pairs.put(found, key, same)
        return found

    def _suffix_taken(self, path: Path) -> bool:
        return bool(self._suffix(path))

    def _class_names(self, said: Description, labelled: bool) -> tuple[str, ...]:
        if self.classes:
            return class_names(self.classes)
        if said.classes and labelled:
            return said.classes
        if labelled:
            raise UserError(
                'there are labels but no class names; give --classes '
                'NAME1,NAME2,... (values 1, 2, ...) or --classes FILE.json, '
                'or leave the labels out'
            )
        return ('background',)
