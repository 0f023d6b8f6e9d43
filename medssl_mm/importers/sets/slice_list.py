"""16-bit CT slices named by a list file."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.importers.base import CaseError, LoadedCase, SourceCase
from medssl_mm.importers.naming import find_files, match_patient, safe_case_id
from medssl_mm.importers.options import option, patients_option
from medssl_mm.importers.readers.table import by_name, read_lines
from medssl_mm.importers.slices import (
    SLICE_PATTERN,
    read_slices,
    slice_case,
    slice_number,
)
from medssl_mm.importers.volumes import VolumeDiscovery, VolumeImporter


@dataclass(frozen=True)
class SliceListImporter(VolumeImporter):
    """16-bit CT slices with a list file, unlabelled.

    Every line of the list is ``relative/path.png label``; the label is a dummy
    of the classification format and is ignored. The parent folder is the case.
    """

    list_file: str | None = option(
        'lines of "relative/path.png label"; default: the one .txt file in --src',
        metavar='FILE',
    )
    offset: int | None = option(
        'what was added to the HU of the stored values; default: 1024', type=int
    )
    patient_pattern: str | None = option(
        'its first group, searched in the path of a line, is the patient id; '
        'default: the parent folder',
        metavar='REGEX',
    )
    patients: str | None = patients_option()

    name = 'slice-list'
    guesses_patients = True
    modality = 'CT'
    units = 'HU'
    palette = [[0, 0, 0]]
    layout = """\
    <src>/VOLUME/slice_000.png        16-bit grey, HU + offset
    LIST.txt (--list-file):  lines 'VOLUME/slice_000.png 0'"""

    def discover(self, src: Path) -> VolumeDiscovery:
        """List the volumes named by the list file."""
        src = Path(src)
        path = self._find_list(src)
        entries = by_name(
            path, read_lines(path, '"relative/path.png label"'), _parse_line
        )
        slices: dict[str, dict] = defaultdict(dict)
        missing = []
        for relative, where in entries.items():
            file = src / relative
            if not file.is_file():
                missing.append(f'{where.rpartition(", ")[2]}: {relative}')
                continue
            folder = Path(relative).parent.as_posix()
            index = slice_number(SLICE_PATTERN, relative)
            other = slices[folder].setdefault(index, (file, None))
            if other[0] != file:
                raise UserError(
                    f'{other[0]} and {file} have one slice number ({index})'
                )
        if missing:
            raise UserError(
                f'{len(missing)} of {len(entries)} listed files are not under '
                f'{src}, e.g. {"; ".join(missing[:3])}. Give the folder that '
                'the paths of the list start from.'
            )
        return self.found(
            slice_case(
                folder,
                members,
                match_patient(self.patient_pattern, f'{folder}/', safe_case_id(folder)),
            )
            for folder, members in slices.items()
        )

    def _find_list(self, src: Path) -> Path:
        if self.list_file:
            for path in (Path(self.list_file), src / self.list_file):
                if path.is_file():
                    return path
            raise UserError(f'list file {self.list_file} does not exist')
        found = find_files(src, '*.txt')
        if len(found) != 1:
            raise self.nothing_found(
                src, f'Found {len(found)} .txt files; give --list-file FILE.'
            )
        return found[0]

    def load(self, case: SourceCase) -> LoadedCase:
        """Read the slices of one volume and subtract the offset."""
        files = case.extra['image_files']
        stored, problems = read_slices(
            files, 'Slices of one folder must be of one volume.'
        )
        if stored.dtype == np.uint8:
            raise CaseError(
                'bit-depth',
                f'{files[0]}: 8-bit pixels; expected 16-bit '
                'PNG with HU + offset. Import 8-bit slices as png.',
            )
        offset = 1024 if self.offset is None else self.offset
        image = stored.astype(np.int32) - offset
        return LoadedCase(image, source_shape=tuple(image.shape), problems=problems)


def _parse_line(where: str, line: str) -> tuple[str, str]:
    """Path of a line, with where it stands."""
    # Paths may hold blanks: the label is the last word, if a number.
    parts = line.rsplit(maxsplit=1)
    name = parts[0] if len(parts) == 2 and re.fullmatch(r'-?\d+', parts[1]) else line
    if not name.lower().endswith('.png'):
        raise UserError(f'{where}: expected "relative/path.png label", found {line!r}')
    return name, where
