"""Volumes of one's own, one file each, in any format that we read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from medssl_mm.errors import UserError
from medssl_mm.importers.base import SourceCase
from medssl_mm.importers.classes import class_names, load_json_file, read_classes
from medssl_mm.importers.naming import by_wildcard, match_patient, safe_case_id
from medssl_mm.importers.options import option, patient_option
from medssl_mm.importers.readers import VOLUME_SUFFIXES, check_reader, suffix_of
from medssl_mm.importers.volumes import VolumeDiscovery, VolumeFiles, units_of

# (images, labels), without suffix: tried in this order when no glob is given.
FIRST_CHANNEL = '_0000'
FOLDERS = (
    (f'imagesTr/*{FIRST_CHANNEL}', 'labelsTr/*'),
    ('imagesTr/*', 'labelsTr/*'),
    ('images/*', 'labels/*'),
)
_MR = re.compile(r'(?i)mri?\b|t1|t2|flair|adc\b|dwi|pd\b|swi\b')


@dataclass(frozen=True)
class VolumesImporter(VolumeFiles):
    """A folder of volumes and, by choice, labels.

    Images and labels are paired by what the wildcards of their globs match:
    ``img/img*.mha`` and ``label/label*.nrrd`` pair ``0007`` with ``0007``;
    ``*/ct.nii.gz`` and ``*/seg.nii.gz`` pair by folder. A ``dataset.json``
    (nnU-Net, Decathlon) gives classes, modality and channels: ``CASE_0000``,
    ``CASE_0001`` ..., or the fourth axis of a NIfTI file.
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
    patient_pattern: str | None = patient_option('; default: one patient per case')

    name = 'volumes'
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
        notes: list[str] = []
        names = self._channel_names(src)
        found, label_of = self._pair(src, names, notes)
        notes += [
            f'label {label_of[key]} has no image and is not used'
            for key in sorted(set(label_of) - set(found))
        ]
        files = {*label_of.values(), *(p for paths in found.values() for p in paths)}
        for suffix in {self._suffix(path) for path in files}:
            check_reader(suffix)
        modality = self.modality or _modality_of(names)
        cases = []
        for key, paths in found.items():
            relative = paths[0].relative_to(src).as_posix()
            case_id = safe_case_id(key or self._stem(paths[0]))
            extra = {}
            if len(names) > 1:
                extra = dict(channels=names, image_files=[str(p) for p in paths])
            cases.append(
                SourceCase(
                    case_id,
                    match_patient(self.patient_pattern, relative, case_id),
                    str(paths[0]),
                    str(label_of[key]) if key in label_of else None,
                    extra,
                )
            )
        return self.found(
            cases,
            notes=notes,
            classes=self._class_names(src, bool(set(label_of) & set(found))),
            palette=None,
            modality=modality,
            units=units_of(modality),
            channels=names if len(names) > 1 else (),
        )

    def _channel_names(self, src: Path) -> tuple[str, ...]:
        if not self.channels:
            return _described_channels(src)
        names = tuple(name.strip() for name in self.channels.split(','))
        if len(set(names)) < len(names) or not all(names):
            raise UserError(f'--channels {self.channels!r}: the names must differ')
        return names

    def _suffix(self, path: Path) -> str:
        return suffix_of(path.name, self.suffixes)

    def _stem(self, path: Path) -> str:
        return path.name[: len(path.name) - len(self._suffix(path))]

    def _pair(
        self, src: Path, names: tuple[str, ...], notes: list[str]
    ) -> tuple[dict[str, list[Path]], dict[str, Path]]:
        """Files of the images, one or one per channel, and labels, by key."""
        if self.images:
            return self._pair_globs(src, self.images, names)
        for folders in FOLDERS:
            image_folder, label_folder = folders
            found = self._in_folder(src, image_folder)
            if found:
                break
        else:
            raise self.nothing_found(src)
        images = {key: [path] for key, path in found.items()}
        if image_folder.endswith(FIRST_CHANNEL):
            parts = [
                self._in_folder(src, image_folder.replace(FIRST_CHANNEL, f'_{n:04d}'))
                for n in range(1, max(len(names), 2))
            ]
            if len(names) > 1 and any(parts):
                for key, path in found.items():
                    # What is missing is reported with the name that it has there.
                    lost = [self._sibling(path, n) for n in range(1, len(names))]
                    images[key] += [p.get(key, q) for p, q in zip(parts, lost)]
            elif parts[0]:
                notes.append(
                    f'{len(parts[0])} second channel(s) are not imported, e.g. '
                    f'{parts[0][min(parts[0])]}: name the channels by --channels, or '
                    'by channel_names in dataset.json'
                )
        return images, self._in_folder(src, label_folder)

    def _sibling(self, path: Path, number: int) -> Path:
        stem = self._stem(path).removesuffix(FIRST_CHANNEL)
        return path.with_name(f'{stem}_{number:04d}{self._suffix(path)}')

    def _pair_globs(
        self, src: Path, pattern: str, names: tuple[str, ...]
    ) -> tuple[dict[str, list[Path]], dict[str, Path]]:
        patterns = [pattern]
        if '{channel}' in pattern:
            if not names:
                raise UserError(f'--images {pattern!r} needs --channels NAME1,NAME2')
            patterns = [pattern.replace('{channel}', name) for name in names]
        parts = [self._by_key(src, one) for one in patterns]
        if not all(parts):
            empty = next(one for one, part in zip(patterns, parts) if not part)
            raise self.nothing_found(src, f'--images {empty!r} matches nothing.')
        found = {}
        for key in {key: None for part in parts for key in part}:
            lost = [one for one, part in zip(patterns, parts) if key not in part]
            if lost:
                raise UserError(
                    f'case {key!r} has no file for {", ".join(lost)} under {src}; '
                    'every case must have all channels'
                )
            found[key] = [part[key] for part in parts]
        label_of = self._by_key(src, self.labels) if self.labels else {}
        if self.labels and not set(label_of) & set(found):
            have = f'e.g. {sorted(label_of)[0]!r}' if label_of else 'none'
            raise UserError(
                f'no label under {src} belongs to an image: the wildcards of '
                f'--images match e.g. {sorted(found)[0]!r}, those of --labels '
                f'{have}. The parts matched by * must be equal for a pair.'
            )
        return found, label_of

    def _in_folder(self, src: Path, pattern: str) -> dict[str, Path]:
        """Files of every suffix, in any case, by what the wildcard matches."""
        folder, name = pattern.split('/')
        end = name.lstrip('*')
        found: dict[str, Path] = {}
        for path in by_wildcard(src, f'{folder}/*', self._suffix_taken).values():
            stem = self._stem(path)
            if stem.endswith(end):
                self._put(found, stem[: len(stem) - len(end)], path, pattern)
        return found

    def _by_key(self, src: Path, pattern: str) -> dict[str, Path]:
        """Files that match a glob, by what its wildcards matched."""
        found: dict[str, Path] = {}
        for parts, path in by_wildcard(src, pattern, self._suffix_taken).items():
            key = '_'.join(part for part in parts if part)
            self._put(found, key, path, pattern)
        return found

    def _suffix_taken(self, path: Path) -> bool:
        return bool(self._suffix(path))

    @staticmethod
    def _put(found: dict[str, Path], key: str, path: Path, pattern: str) -> None:
        if key in found:
            raise UserError(
                f'glob {pattern!r}: {found[key]} and {path} cannot be told '
                f'apart, both give {key!r}; import them one by one'
            )
        found[key] = path

    def _class_names(self, src: Path, labelled: bool) -> tuple[str, ...]:
        description = src / 'dataset.json'
        if self.classes:
            return class_names(self.classes)
        if description.is_file() and labelled:
            return read_classes(description)
        if labelled:
            raise UserError(
                'there are labels but no class names; give --classes '
                'NAME1,NAME2,... (values 1, 2, ...) or --classes FILE.json, '
                'or leave the labels out'
            )
        return ('background',)


def _described_channels(src: Path) -> tuple[str, ...]:
    """Names of the channels by ``dataset.json``; none where it has none."""
    path = src / 'dataset.json'
    if not path.is_file():
        return ()
    content: Any = load_json_file(path, 'class file')
    named = isinstance(content, dict) and (
        content.get('channel_names') or content.get('modality')
    )
    if not isinstance(named, dict):
        return ()
    names = [
        str(named[key]).strip() for key in sorted(named, key=lambda k: (len(k), k))
    ]
    # Phases of one sequence may be called alike.
    return tuple(
        name if names.count(name) == 1 else f'{name} {index}'
        for index, name in enumerate(names)
    )


def _modality_of(names: tuple[str, ...]) -> str:
    """Modality by the names of the channels; CT where there are none."""
    kinds = {
        'CT' if re.match(r'(?i)ct\b', name) else 'MR' if _MR.match(name) else 'other'
        for name in names or ('CT',)
    }
    return kinds.pop() if len(kinds) == 1 else 'other'
