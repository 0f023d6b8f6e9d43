"""What ``dataset.json`` of nnU-Net and the Decathlon says of a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medssl_mm.errors import UserError
from medssl_mm.files import read_json
from medssl_mm.importers.classes import described_classes

DESCRIPTION = 'dataset.json'
_CT = re.compile(r'(?i)\b(cb|ce|ld|nc)?cta?\b|computed tomography|hounsfield')
_MR = re.compile(r'(?i)\b\w*mri?\b|\bt[12]|flair|\badc\b|dwi|\bpd\b|\bswi\b|magnetic')


@dataclass(frozen=True)
class Description:
    """What is said of the images of a folder; nothing, where there is no file.

    Args:
        channels (tuple[str]): Names of the channels. Defaults to (): not said.
        classes (tuple[str]): Names of the label values. Defaults to ().
        ending (str): Of the image files, '.nii.gz'. Defaults to ''.
        training (int, optional): Number of training cases. Defaults to None.
        listed (tuple[str]): Training images by path. Defaults to ().
        cases (Mapping): Images, one per channel, and label (or None) by case, of
            nnU-Net's list of cases in any place. Defaults to {}: there is none.
        notes (tuple[str]): What to say of it. Defaults to ().
    """

    channels: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    ending: str = ''
    training: int | None = None
    listed: tuple[str, ...] = ()
    cases: Mapping[str, tuple[tuple[str, ...], str | None]] = field(
        default_factory=dict
    )
    notes: tuple[str, ...] = field(default=())

    def compare(self, src: Path, cases: int, files: Sequence[Path]) -> list[str]:
        """Say where the folder is not what the description promises."""
        notes = list(self.notes)
        if self.training is not None and self.training != cases:
            notes.append(
                f'{DESCRIPTION} says {self.training} training cases '
                f'(numTraining), {cases} were found'
            )
        missing = [name for name in self.listed if not (src / name).is_file()]
        if missing:
            notes.append(
                f'{len(missing)} of {len(self.listed)} training images of '
                f'{DESCRIPTION} are not there, e.g. {missing[0]}'
            )
        other = [f for f in files if not f.name.lower().endswith(self.ending.lower())]
        if other:
            notes.append(
                f'{len(other)} file(s) have not the file_ending {self.ending!r} of '
                f'{DESCRIPTION}, e.g. {other[0]}; they were taken'
            )
        return notes


def read_description(src: Path) -> Description:
    """Read ``dataset.json`` of a folder, in either dialect.

    Raises:
        UserError: It is not JSON, or its labels or cases have no meaning.
    """
    path = src / DESCRIPTION
    if not path.is_file():
        return Description()
    content = read_json(path, 'class file')
    if not isinstance(content, dict):
        return Description()
    notes: list[str] = []
    labels = content.get('labels')
    training = content.get('numTraining')
    return Description(
        _channels(content.get('channel_names') or content.get('modality')),
        described_classes(path, content, notes) if labels else (),
        str(content.get('file_ending') or ''),
        training if type(training) is int else None,
        tuple(_listed(content.get('training'))),
        dict(_cases(path, content.get('dataset'))),
        tuple(notes),
    )


def _cases(
    path: Path, named: Any
) -> Iterator[tuple[str, tuple[tuple[str, ...], str | None]]]:
    """Cases of nnU-Net's key ``dataset``, which may also be a mere name."""
    for key, entry in named.items() if isinstance(named, dict) else ():
        entry = entry if isinstance(entry, dict) else {}
        images, label = entry.get('images') or [], entry.get('label')
        texts = [*images, label or ''] if isinstance(images, list) else ['']
        if len(texts) < 2 or not all(isinstance(text, str) for text in texts):
            raise UserError(
                f'{path}: expected "dataset" to list {{"images": ["PATH", ...], '
                f'"label": "PATH"}} by case; found {entry} for {key!r}'
            )
        yield key, (tuple(images), label)


def _channels(named: Any) -> tuple[str, ...]:
    """Names in the order of their keys, lists as they are, one word as one."""
    if isinstance(named, str):
        named = [named]
    if isinstance(named, dict):
        named = [named[key] for key in sorted(named, key=lambda k: (len(k), k))]
    names = [str(name).strip() for name in named or ()]
    # Phases of one sequence may be called alike.
    return tuple(
        name if names.count(name) == 1 else f'{name} {index}'
        for index, name in enumerate(names)
    )


def _listed(entries: Any) -> list[str]:
    """Images of the Decathlon's list of training cases."""
    if not isinstance(entries, list):
        return []
    images = (e.get('image') if isinstance(e, dict) else e for e in entries)
    return [image for image in images if isinstance(image, str)]


def modality_of(names: Sequence[str]) -> str:
    """Modality by the names of the channels; CT where there are none."""
    kinds = {
        'CT' if _CT.search(name) else 'MR' if _MR.search(name) else 'other'
        for name in names or ('CT',)
    }
    return kinds.pop() if len(kinds) == 1 else 'other'
