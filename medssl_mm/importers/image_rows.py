"""Importers of the sets that are a row of :mod:`medssl_mm.datasets.image_sets`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from medssl_mm.datasets.image_sets import (
    FOLDER,
    IMAGE_SETS,
    MULTI,
    REST,
    UNSURE,
    ImageSet,
    LabelTable,
)
from medssl_mm.errors import UserError
from medssl_mm.importers.base import Problem
from medssl_mm.importers.images import ImageDiscovery, folder_of_lists
from medssl_mm.importers.naming import find_files, find_patient
from medssl_mm.importers.options import option, patient_option, patients_option
from medssl_mm.importers.picture_tables import Finder, finder
from medssl_mm.importers.pictures import Picture, PictureImporter
from medssl_mm.importers.readers import check_reader, load_volume
from medssl_mm.importers.readers.picture import find_pictures
from medssl_mm.importers.readers.table import read_rows, whole_number
from medssl_mm.store.compat_splits import compat_lists
from medssl_mm.store.images import UNCERTAIN, UNKNOWN, Label

VOLUME = '.mha'


@dataclass(frozen=True)
class Row:
    """A picture as the table of a set has it.

    Args:
        where (str): File and line, for messages.
        name (str): Path or name of the picture.
        label (int | tuple): Class index, or 0, 1, 2 per class; -1: not known.
    """

    where: str
    name: str
    label: Label


@dataclass(frozen=True)
class ImageRowImporter(PictureImporter):
    """Base class: pictures of a set that the table of image sets describes.

    Where folder, file name and table all tell the class they must agree.

    Attributes:
        row (ImageSet): The set.
    """

    lists: str | None = option(
        'folder of the label table; default: anywhere below --src', metavar='DIR'
    )
    patient_pattern: str | None = patient_option()
    patients: str | None = patients_option()
    label_map: str | None = option('what the labels of the source mean')
    transposed: bool | None = option(
        'exchange rows and columns, as the published comparison shows the slices',
        action='store_true',
    )

    row: ClassVar[ImageSet]

    def __reduce__(self) -> tuple:  # the class has no place in a module
        return _remake, (self.name, self.given())

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_map is not None and self.label_map not in self.row.label_maps:
            raise UserError(
                f'--label-map of {self.name} must be one of '
                f'{", ".join(self.row.label_maps)}, got {self.label_map!r}'
            )

    @classmethod
    def options(cls) -> dict[str, dict]:
        """Options by name; what is fixed for this set is not among them."""
        found = super().options()
        if 'label_map' in found:
            names = tuple(cls.row.label_maps)
            found['label_map'] = dict(
                found['label_map'],
                choices=names,
                help=f'{found["label_map"]["help"]}; default: {names[0]}',
            )
        return found

    @property
    def meaning(self) -> Mapping[str, str]:
        """What a text of the source means: class, or 0, 1 or uncertain."""
        maps = self.row.label_maps
        if not maps:  # folders are called as the classes
            return {name.lower(): name for name in self.row.classes}
        return maps[self.label_map or next(iter(maps))]

    def discover(self, src: Path) -> ImageDiscovery:
        """List the pictures."""
        src, notes = Path(src), list[str]()
        if self.row.window:
            check_reader(VOLUME)
        table = self._find_table(src)
        files = self._named(self.picture_files(src), src, notes)
        pictures = (
            self._from_files(src, files)
            if table is None
            else self._from_tables(src, files, table, notes)
        )
        compat: Mapping = {}
        if self.row.compat:
            names = [
                p.name for p in pictures if p.label != UNKNOWN and p.subset != 'test'
            ]
            compat = compat_lists(self.name, names, self.row.compat)
        return self.describe(
            pictures,
            notes,
            compat=compat,
            uncertain=UNSURE in self.meaning.values(),
        )

    def picture_files(self, src: Path) -> list[Path]:
        """List the pictures, or volumes, below a folder."""
        if not self.row.window:
            return super().picture_files(src)
        files = find_pictures(src, (VOLUME,))
        if not files:
            raise self.nothing_found(src, f'There is no {VOLUME} file.')
        return files

    def _named(self, files: list[Path], src: Path, notes: list[str]) -> list[Path]:
        """Leave out what has not the name or place of the set, with a note."""
        inside, pattern = self.row.inside, self.row.files
        below = [path for path in files if inside in path.relative_to(src).parts]
        files = below or files
        if pattern is None:
            return files
        named = [path for path in files if re.fullmatch(pattern, path.stem, re.I)]
        if not named:
            raise self.nothing_found(
                src,
                f'{len(files)} picture(s) have another name than {pattern}, e.g. '
                f'{files[0]}.',
            )
        if len(named) < len(files):
            other = min(set(files) - set(named))
            notes.append(
                f'{len(files) - len(named)} picture(s) have another name than '
                f'{pattern} and were left out, e.g. {other}'
            )
        return named

    def _id_of(self, path: Path, src: Path) -> str:
        return path.stem if self.row.files else path.relative_to(src).as_posix()

    # -- labels of files

    def _from_files(self, src: Path, files: Sequence[Path]) -> list[Picture]:
        pictures = []
        for path in files:
            said = self._said(path, src)
            name = self._id_of(path, src)
            if said:
                pictures.append(self._picture(name, path, src, said))
                continue
            message = (
                f'{path}: none of its folders is a class of {self.name} ('
                f'{", ".join(self.row.classes)}); image-folder takes any classes.'
            )
            pictures.append(Picture(name, path, problem=('no-class', message)))
        return pictures

    def _said(self, path: Path, src: Path) -> dict[str, int]:
        """Class index by what tells it: the name of the file, a folder."""
        said = {}
        if self.row.layout == FOLDER:
            for folder in path.relative_to(src).parts[:-1]:
                label = self.meaning.get(folder.lower())
                # One or two letters are codes of file names and tables.
                if label is not None and len(folder) > 2:
                    said[f'its folder {folder!r}'] = self.row.classes.index(label)
        found = re.fullmatch(self.row.files or '', path.stem, re.I)
        if found and 'label' in found.groupdict():
            label = self.meaning[found['label'].lower()]
            said['its name'] = self.row.classes.index(label)
        return said

    def _picture(
        self, name: str, path: Path, src: Path, said: Mapping[str, Label]
    ) -> Picture:
        text = path.relative_to(src).as_posix()
        pattern = self.patient_pattern or self.row.patient
        patient, problem = find_patient(pattern, text, '')
        labels = list(dict.fromkeys(said.values()))
        if len(labels) > 1:
            parts = [
                f'{what} says {self.row.classes[index]}'
                for what, index in said.items()
                if isinstance(index, int)
            ]
            problem = (
                'class-mismatch',
                f'{path}: {", ".join(parts)}; correct one of them.',
            )
        return Picture(name, path, labels[0], patient=patient or None, problem=problem)

    # -- labels of a table

    def _find_table(self, src: Path) -> Path | None:
        table = self.row.table
        if table is None:
            return None
        folder = folder_of_lists(src, self.lists)
        for name in table.names:
            found = find_files(folder, f'**/{name}')
            if len(found) > 1:
                raise UserError(
                    f'{found[0]} and {found[1]} are both there; keep the one whose '
                    'labels are to be used, or name its folder by --lists'
                )
            if found:
                return found[0]
        if table.needed or self.lists:
            raise self.nothing_found(
                src, f'There is no {" or ".join(table.names)} below {folder}.'
            )
        return None

    def _from_tables(
        self, src: Path, files: Sequence[Path], table: Path, notes: list[str]
    ) -> list[Picture]:
        names = self.row.table.test if self.row.table else ()
        tests = [path for name in names if (path := table.with_name(name)).is_file()]
        rows = {path: self.read_table(path) for path in (table, *tests[:1])}
        subsets = ('train', 'test') if tests else (None,)
        texts = [row.name for part in rows.values() for row in part]
        find = finder(src, files, texts)
        used: set[Path] = set()
        pictures = [
            picture
            for subset, part in zip(subsets, rows.values())
            for picture in self._listed(src, part, subset, find, used)
        ]
        where = ' or '.join(map(str, rows))
        if not used:
            raise self.nothing_found(
                src,
                f'None of the {len(texts)} pictures of {where} is there, e.g. '
                f'{texts[0]!r}.',
            )
        extra = sorted(set(files) - used)
        notes += [
            f'{len(extra)} picture(s) are not in {where} and were left out, e.g. {path}'
            for path in extra[:1]
        ]
        return pictures

    def _listed(
        self,
        src: Path,
        rows: Sequence[Row],
        subset: str | None,
        find: Finder,
        used: set[Path],
    ) -> Iterator[Picture]:
        for row in rows:
            path, problem = find(row.where, row.name)
            if path is None:
                name = Path(row.name).stem if self.row.files else row.name
                yield Picture(name, src / name, row.label, subset, problem=problem)
                continue
            used.add(path)
            said: dict[str, Label] = dict(self._said(path, src))
            if row.label != UNKNOWN:
                said[row.where] = row.label
            name = path.stem if self.row.files else row.name
            picture = self._picture(name, path, src, said or {row.where: UNKNOWN})
            yield replace(picture, subset=subset)

    def read_table(self, path: Path) -> list[Row]:
        """Read names and labels, in the order of the table; equal rows are one.

        Raises:
            UserError: Missing column, unknown label, or a picture with two labels;
                names file and line.
        """
        form = self.row.table or LabelTable((), 0)
        rows = read_rows(path, header=form.header)
        name_column = _column(path, rows[0][1], form.path, 'picture')
        labels = self.row.classes if form.label is None else (form.label,)
        columns = [_column(path, rows[0][1], label, 'label') for label in labels]
        index_of = {name: index for index, name in enumerate(self.row.classes)}
        found: dict[str, Row] = {}
        known: dict[str, str] = {}
        for line, row in rows:
            where = f'{path}, line {line}'
            name = row[name_column].strip()
            if not name:
                raise UserError(f'{where}: the column {name_column!r} is empty.')
            meant = []
            for column in columns:
                text = row[column]
                if text not in known:  # a few texts in millions of cells
                    known[text] = self._mean(where, column, text)
                meant.append(known[text])
            label: Label
            if self.row.task == MULTI:
                label = tuple(UNCERTAIN if m == UNSURE else int(m) for m in meant)
            else:
                label = index_of[meant[0]] if meant[0] else UNKNOWN
            first = found.setdefault(name, Row(where, name, label))
            if first.label != label:
                raise UserError(
                    f'{where}: {name} has another label than in '
                    f'{first.where.rpartition(", ")[2]}; correct one of them.'
                )
        return list(found.values())

    def _mean(self, where: str, column: str, text: str) -> str:
        """What a cell means; '' where it is empty and that means nothing."""
        meaning, plain = self.meaning, _plain(text)
        if plain in meaning:
            return meaning[plain]
        if not plain:
            return ''
        if REST in meaning:
            return meaning[REST]
        known = ', '.join(repr(word) for word in meaning)
        raise UserError(
            f'{where}: unknown label {text.strip()!r} in column {column!r}; known are '
            f'{known}. Correct it, or take image-table with a --label-map.'
        )

    # -- pixels

    def read(self, path: str) -> tuple[np.ndarray, list[Problem]]:
        """Read a picture, or the middle slice of a volume in its window."""
        if self.row.window is None:
            return super().read(path)
        volume = load_volume(path)
        low, high = self.row.window
        values = volume.image[len(volume.image) // 2].astype(np.float64)
        shown = (np.clip(values, low, high) - low) / (high - low) * 255
        pixels = shown.astype(np.uint8)  # cut off, as the published comparison does
        return (pixels.T if self.transposed else pixels), volume.problems


def _plain(text: str) -> str:
    """A cell in lower case, a number without its zeros: '-1.0' as '-1'."""
    text = text.strip().lower()
    number = whole_number(text.removeprefix('-'))
    return text if number is None else f'{"-" * text.startswith("-")}{number}'


def _column(path: Path, row: Mapping[str, Any], wanted: str | int, what: str) -> str:
    """Name of a column by name or place.

    Raises:
        UserError: There is none.
    """
    names = list(row)
    if isinstance(wanted, int):
        if wanted < len(names):
            return names[wanted]
        wanted = f'number {wanted + 1}'
    elif wanted in names:
        return wanted
    raise UserError(
        f'label list {path} has no column {wanted} (of the {what}); its columns are '
        f'{", ".join(map(repr, names[:16]))}'
    )


@cache
def row_importer(name: str) -> type[ImageRowImporter]:
    """The importer of a set by its row."""
    row = IMAGE_SETS[name]
    without = ['colours']
    if row.table is None:
        without.append('lists')
    if len(row.label_maps) < 2:
        without.append('label_map')
    without.append('transposed' if row.window is None else 'window')
    source = textwrap.fill(
        row.source.replace('`', ''), 76, initial_indent='<src>/', subsequent_indent='  '
    )
    compat = f" and '{name}-compat' (by image, as published)" if row.compat else ''
    return type(
        f'{name.title().replace("-", "")}Importer',
        (ImageRowImporter,),
        dict(
            __doc__=f"{row.title}.\n\n    Splits: '{name}-patients' (drawn){compat}.\n",
            __module__=__name__,
            name=name,
            row=row,
            classes=row.classes,
            task=row.task,
            channels=row.channels,
            default_size=row.size,
            pad=row.pad,
            layout=source,
            without=tuple(without),
        ),
    )


def _remake(name: str, options: Mapping[str, Any]) -> ImageRowImporter:
    return replace(row_importer(name)(), **options)
