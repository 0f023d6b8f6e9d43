"""Tables that name pictures and say what they show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl_mm.errors import UserError
from medssl_mm.importers.images import ImageDiscovery
from medssl_mm.importers.naming import find_files, find_patient
from medssl_mm.importers.pictures import SUBSET_NAMES, Picture, PictureImporter
from medssl_mm.importers.readers.picture import ALL_SUFFIXES
from medssl_mm.importers.readers.table import read_rows, whole_number, zeros_and_ones
from medssl_mm.store.images import UNCERTAIN, UNKNOWN

DOUBTFUL = 'uncertain'  # one of several labels
Problem = tuple[str, str] | None  # code, message
Finder = Callable[[str, str], tuple[Path | None, Problem]]
TRUTH = {'true': 1, 'yes': 1, 'false': 0, 'no': 0}


@dataclass(frozen=True)
class Columns:
    """Which column of a table says what.

    Args:
        path (str): File of the picture.
        label (str, optional): Its class. Defaults to None.
        labels (Sequence[str]): Instead: one column of 0 and 1 per class.
        patient (str, optional): Patient. Defaults to None.
        subset (str, optional): train, val or test. Defaults to None.
        meaning (Mapping): What a text in a label column means. Defaults to {}.
    """

    path: str
    label: str | None = None
    labels: Sequence[str] = ()
    patient: str | None = None
    subset: str | None = None
    meaning: Mapping[str, str] | None = None

    def needed(self) -> list[str]:
        """Columns that must be there."""
        single = (self.path, self.label, self.patient, self.subset)
        return [name for name in (*single, *self.labels) if name]


@dataclass(frozen=True)
class Listed:
    """One picture of a table.

    Args:
        where (str): File and line, for messages.
        path (str): As the table names it.
        label (str | tuple | None): Class, or 0/1 (2: uncertain) per class; None:
            empty.
        patient (str, optional): Patient.
        subset (str, optional): 'train', 'val' or 'test'.
    """

    where: str
    path: str
    label: str | tuple[int, ...] | None
    patient: str | None
    subset: str | None


def read_listed(table: Path, columns: Columns) -> list[Listed]:
    """Read the pictures of a table, in its order; equal rows are one.

    Raises:
        UserError: Missing file or column, a value that has no meaning, or a
            picture with contradicting rows; names file and line.
    """
    found: dict[str, Listed] = {}
    for line, row in read_rows(table, columns.needed()):
        where = f'{table}, line {line}'
        name = row[columns.path].strip()
        if not name:
            raise UserError(f'{where}: the column {columns.path!r} is empty.')
        listed = Listed(
            where,
            name,
            _label(where, row, columns),
            row[columns.patient].strip() or None if columns.patient else None,
            _subset(where, row[columns.subset]) if columns.subset else None,
        )
        first = found.setdefault(name, listed)
        for fact in ('label', 'patient', 'subset'):
            known, said = getattr(first, fact), getattr(listed, fact)
            if known != said:
                raise UserError(
                    f'{where}: {name} has the {fact} {said!r}, but {known!r} in '
                    f'{first.where.rpartition(", ")[2]}; correct one of them.'
                )
    return list(found.values())


def _label(
    where: str, row: Mapping[str, str], columns: Columns
) -> str | tuple[int, ...] | None:
    names = columns.labels or ([columns.label] if columns.label else [])
    texts = [_meaning(where, name, row[name], columns.meaning) for name in names]
    if not any(texts):
        return None
    if not columns.labels:
        return texts[0]
    doubtful = [text.lower() == DOUBTFUL for text in texts]
    sure = truths(where, ['0' if d else text for d, text in zip(doubtful, texts)])
    return tuple(UNCERTAIN if d else value for d, value in zip(doubtful, sure))


def _meaning(
    where: str, column: str, text: str, meaning: Mapping[str, str] | None
) -> str:
    text = text.strip()
    if meaning is None:
        if text.lower() == 'nan':  # an empty cell, as pandas shows it
            return ''
        number = whole_number(text)
        return text if number is None else str(number)  # '1.0' as '1'
    if text not in meaning and text:
        raise UserError(
            f'{where}: {text!r} in column {column!r} is not in --label-map; it has '
            f'{", ".join(map(repr, meaning))}.'
        )
    return meaning.get(text, '')


def truths(where: str, texts: Sequence[str]) -> tuple[int, ...]:
    """0 or 1 of every text; true and false are taken as well.

    Raises:
        UserError: Anything else.
    """
    if not all(texts):
        raise UserError(
            f'{where}: some of the labels are empty; fill them in, or say what an '
            'empty cell means, e.g. --label-map "=0,0=0,1=1".'
        )
    return zeros_and_ones(
        where, [str(TRUTH.get(text.strip().lower(), text)) for text in texts]
    )


def _subset(where: str, text: str) -> str | None:
    name = text.strip().lower()
    if name and name not in SUBSET_NAMES:
        raise UserError(
            f'{where}: subset {text.strip()!r}; expected one of '
            f'{", ".join(SUBSET_NAMES)}, or nothing.'
        )
    return SUBSET_NAMES.get(name)


def unknown_of(columns: Columns) -> int | tuple[int, ...]:
    """Label of a picture that the table leaves open."""
    return (UNKNOWN,) * len(columns.labels) if columns.labels else UNKNOWN


def class_order(listed: Iterable[Listed]) -> tuple[str, ...]:
    """Classes that a table names: numbers by value, else by name."""
    names = {item.label for item in listed if isinstance(item.label, str)}
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def finder(src: Path, files: Sequence[Path], texts: Iterable[str]) -> Finder:
    """Function from (where, text of a table) to the picture that it names.

    It returns the path, or None and what is wrong: code and message.

    A text is a path below ``src``, perhaps behind folders that are not there,
    or a file name, perhaps without its suffix, anywhere below. A name that several
    texts end in (``patient1/view1.jpg``) does not tell a picture by itself. Nor does
    one behind a folder that is not there where folders beside it are: it is the
    picture of another folder.

    Args:
        src (Path): Folder.
        files (Sequence[Path]): Its pictures.
        texts (Iterable[str]): All of the table.
    """
    named = [_parts(text) for text in texts]
    count = Counter(parts[-1] for parts in named if parts)
    by_path = {path.relative_to(src).as_posix(): path for path in files}
    by_name: dict[str, list[Path]] = {}
    for path in files:
        for key in {path.name, path.stem}:
            by_name.setdefault(key, []).append(path)

    def candidates(parts: Sequence[str]) -> list[Path]:
        """Pictures that a text may mean, by its last folders and name or its name."""
        for start in range(len(parts)):
            path = by_path.get('/'.join(parts[start:]))
            if path is not None:
                return [path]
        if not parts or len(parts) > 1 and count[parts[-1]] > 1:
            return []
        found = by_name.get(parts[-1], [])
        if not found and Path(parts[-1]).suffix.lower() in ALL_SUFFIXES:
            found = by_name.get(Path(parts[-1]).stem, [])  # converted pictures
        return found

    def absent(parts: Sequence[str], path: Path) -> int:
        """Number of the first folders of a text that a picture does not lie in."""
        folders = path.relative_to(src).parts[-2::-1]
        left = len(parts) - 1
        for folder in folders:
            if not left or parts[left - 1] != folder:
                break
            left -= 1
        return left

    # Where, in the tree of the texts, there are folders that are there.
    there: set[tuple[str, ...]] = set()
    for parts in named:
        for path in candidates(parts):
            there.update(
                parts[:end] for end in range(absent(parts, path), len(parts) - 1)
            )

    def find(where: str, text: str) -> tuple[Path | None, Problem]:
        missing = (
            'missing',
            f'{where}: no picture {text!r} below {src}; copy it there, or remove the '
            'row.',
        )
        parts = _parts(text)
        found = [
            path
            for path in candidates(parts)
            if not any(parts[:end] in there for end in range(absent(parts, path)))
        ]
        if len(found) > 1:
            return None, (
                'ambiguous',
                f'{where}: {text!r} may be {found[0]} or {found[1]}; name the folder '
                'in the table, or keep one of them.',
            )
        return (found[0], None) if found else (None, missing)

    return find


def _parts(text: str) -> tuple[str, ...]:
    """Folders and name of a path as a table has it, of whatever system."""
    return Path(text.replace('\\', '/')).parts


def find_table(importer: PictureImporter, src: Path, name: str | None) -> Path:
    """The table: the file given, below ``src`` or not, or the only one in it.

    Raises:
        UserError: No such file, none, or several.
    """
    if name:
        path = src / name
        path = path if path.is_file() else Path(name)
        if not path.is_file():
            raise UserError(
                f'label table {name}: no such file, neither in {src} nor here; give '
                'its path by --table'
            )
        return path
    found = [p for p in find_files(src, '*') if '.csv' in map(str.lower, p.suffixes)]
    if len(found) != 1:
        names = ', '.join(path.name for path in found[:8])
        raise importer.nothing_found(
            src,
            f'Found {len(found)} tables{f": {names}" if names else ""}; name the right '
            'one by --table.',
        )
    return found[0]


def discover_listed(
    importer: PictureImporter,
    src: Path,
    table: Path,
    listed: Sequence[Listed],
    classes: tuple[str, ...],
    pattern: str | None = None,
    unknown: int | tuple[int, ...] = UNKNOWN,
    **facts: Any,
) -> ImageDiscovery:
    """Make the discovery of the pictures of a table.

    Args:
        importer (PictureImporter): Of the set.
        src (Path): Folder of the pictures.
        table (Path): The table.
        listed (Sequence[Listed]): Its pictures.
        classes (tuple[str]): Classes.
        pattern (str, optional): Patient pattern. Defaults to None.
        unknown (int | tuple): Label of pictures that the table leaves open.
            Defaults to that of one label.
        facts: Further ones of the set.

    Raises:
        UserError: None of the listed pictures is there.
    """
    files = importer.picture_files(src)
    find = finder(src, files, [item.path for item in listed])
    paths = [find(item.where, item.path) for item in listed]
    used = {path for path, _ in paths if path is not None}
    if not used:
        reasons = [problem[1] for _, problem in paths if problem]
        raise importer.nothing_found(
            src,
            f'None of the {len(listed)} pictures of {table} can be used: {reasons[0]}',
        )
    index_of = {name: index for index, name in enumerate(classes)}
    pictures = []
    for item, (path, problem) in zip(listed, paths):
        label = unknown if item.label is None else item.label
        if isinstance(label, str):
            label = index_of[label]
        if path is None:
            pictures.append(
                Picture(
                    item.path,
                    src / item.path,
                    label,
                    item.subset,
                    item.patient,
                    problem,
                )
            )
        else:
            pictures.append(_picture(src, item, path, label, pattern))
    extra = sorted(set(files) - used)
    notes = [
        f'{len(extra)} picture(s) are not in {table.name} and were left out, e.g. '
        f'{path}'
        for path in extra[:1]
    ]
    return importer.describe(pictures, notes, classes=classes, **facts)


def _picture(
    src: Path,
    item: Listed,
    path: Path,
    label: int | tuple[int, ...],
    pattern: str | None,
) -> Picture:
    """One listed picture."""
    text = path.relative_to(src).as_posix()
    patient, problem = find_patient(pattern, text, item.patient or '')
    return Picture(item.path, path, label, item.subset, patient or None, problem)
