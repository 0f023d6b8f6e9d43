"""Lists as text: CSV tables with a header, and plain lines."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

from medssl_mm.errors import UserError
from medssl_mm.files import (
    LARGEST_TEXT,
    decode,
    delimiter_of,
    read_regular,
    read_text,
)
from medssl_mm.importers.naming import is_sidecar

T = TypeVar('T')
_DAMAGED = (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, RuntimeError)
_WHOLE = re.compile(r'(\d+)([.,]\d*)?(e[+-]?\d+)?', re.I)


def read_rows(
    path: Path, columns: Sequence[str] = (), header: bool = True
) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV file with a header: (line number, row by column).

    As Excel, pandas and Kaggle write them: UTF-8 or UTF-16, with or without mark;
    parted by commas, semicolons or tabulators; blank rows, and blank columns at the
    end, do not count.

    Args:
        path (Path): The file; it may be compressed (gzip, or a zip archive with one
            file).
        columns (Sequence[str]): Columns that must be there. A row may end early,
            as Excel lets it, when it has these.
        header (bool): Whether the first line names the columns; else they are
            'column 1', 'column 2' ... Defaults to True.

    Raises:
        UserError: When it is no such file, or a column is missing.
    """
    text = _read_table(path)
    delimiter, start = delimiter_of(text, columns)
    reader = csv.reader(io.StringIO(text[start:], newline=''), delimiter=delimiter)
    skipped = text[:start].count('\n')
    try:
        lines = [
            (reader.line_num + skipped, cells)
            for cells in reader
            if any(map(str.strip, cells))
        ]
    except csv.Error as error:
        raise UserError(f'label list {path} is no CSV file: {error}') from None
    names = _names(lines, header)
    body = lines[1:] if header else lines
    if not body:
        raise UserError(f'label list {path} holds no rows below its header')
    _check_columns(path, names, columns)
    needed = max((names.index(name) + 1 for name in columns), default=len(names))
    rows = []
    for number, cells in body:
        if len(cells) > len(names):
            cells = [*cells[: len(names)], *filter(str.strip, cells[len(names) :])]
        if not needed <= len(cells) <= len(names):
            raise UserError(
                f'{path}, line {number}: expected {len(names)} columns as in the '
                f'{"header" if header else "first line"}; found another number.'
            )
        filled = itertools.chain(cells, itertools.repeat(''))
        rows.append((number, dict(zip(names, filled))))
    return rows


def _names(lines: Sequence[tuple[int, list[str]]], header: bool) -> list[str]:
    """Names of the columns, without blank ones at the end; doubled ones numbered."""
    if not lines:
        return []
    first = [cell.strip() for cell in lines[0][1]]
    while first and not first[-1]:
        first.pop()
    if not header:
        return [f'column {place}' for place in range(1, len(first) + 1)]
    names: list[str] = []
    for name in first:
        names.append(name if name not in names else f'{name}.{names.count(name)}')
    return names


def _check_columns(path: Path, names: list[str], columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in names]
    if missing:
        raise UserError(
            f'label list {path} has no column {", ".join(missing)}; its '
            f'columns are {", ".join(map(repr, names[:16]))}'
        )
    twice = [name for name in columns if f'{name}.1' in names]
    if twice:
        raise UserError(
            f'label list {path} names the column {", ".join(twice)} twice; rename one'
        )


def _read_table(path: Path) -> str:
    """Text of a table that may be compressed, as its content tells."""
    try:
        content = read_regular(path, LARGEST_TEXT)
        if content.startswith(b'\x1f\x8b'):
            with gzip.open(io.BytesIO(content)) as file:
                content = _limited(path, file)
        elif content.startswith(b'PK\x03\x04'):
            content = _unzipped(path, content)
    except _DAMAGED as error:
        raise UserError(f'label list {path} is no CSV file: {error}') from None
    except OSError as error:
        raise UserError(f'label list {path}: {error.strerror}') from None
    return decode(content, path, 'label list')


def _unzipped(path: Path, content: bytes) -> bytes:
    """The one file of an archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [
            name
            for name in archive.namelist()
            if not name.endswith('/') and not is_sidecar(Path(name), Path())
        ]
        if any(name.startswith(('xl/', 'content.xml')) for name in names):
            raise UserError(
                f'label list {path} is a workbook; save its sheet as "CSV UTF-8"'
            )
        if len(names) != 1:
            raise UserError(
                f'label list {path} holds {len(names)} files; unpack it and name '
                'the right one'
            )
        with archive.open(names[0]) as file:
            return _limited(path, file)


def _limited(path: Path, file: gzip.GzipFile | IO[bytes]) -> bytes:
    content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise UserError(
            f'label list {path} holds more than {LARGEST_TEXT >> 20} MiB when unpacked'
        )
    return content


def read_lines(path: Path, expected: str = '') -> list[tuple[int, str]]:
    """Read the lines of a list that are not blank: (line number, text).

    Args:
        path (Path): The file, in UTF-8 or UTF-16. Lines may stand in quotes.
        expected (str): What the lines should be, for the message.

    Raises:
        UserError: Unreadable, or nothing in it.
    """
    kept = [
        (number, re.sub(r'^"([^"]*)"$', r'\1', line.strip()).strip())
        for number, line in enumerate(read_text(path, 'list').splitlines(), 1)
        if line.strip()
    ]
    if not kept:
        raise UserError(
            f'list {path} is empty'
            + (f'; expected lines {expected}' if expected else '')
        )
    return kept


def by_name(
    path: Path,
    entries: Iterable[tuple[int, T]],
    parse: Callable[[str, T], tuple[str, object]],
) -> dict:
    """Turn the entries of a list into values by name.

    Args:
        path (Path): The list.
        entries (Iterable): Of :func:`read_rows` or :func:`read_lines`.
        parse (Callable): Called as ``parse(where, entry)``, ``where`` naming
            file and line; returns name and value.

    Raises:
        UserError: A name is listed twice.
    """
    found: dict = {}
    lines: dict[str, int] = {}
    for line, entry in entries:
        where = f'{path}, line {line}'
        name, value = parse(where, entry)
        if name in found:
            raise UserError(
                f'{where}: {name} is listed twice, already in line {lines[name]}; '
                'remove one.'
            )
        found[name], lines[name] = value, line
    return found


def join_lists(lists: Mapping[Path, Mapping]) -> dict:
    """Join lists that must not share a name.

    Raises:
        UserError: Names the later list and an example.
    """
    joined: dict = {}
    for path, content in lists.items():
        twice = sorted(set(joined) & set(content))
        if twice:
            raise UserError(
                f'{path}: {len(twice)} image(s) are in another '
                f'list as well, e.g. {twice[0]}'
            )
        joined.update(content)
    return joined


def whole_number(text: str) -> int | None:
    """A whole number, also as other programs write it: '3.0', '3,0', '3e+00'.

    A comma before three digits may part thousands, so '3,000' is none.
    """
    found = _WHOLE.fullmatch(text.strip())
    if not found or re.fullmatch(r'[1-9]\d*,\d{3}', found[0]):
        return None
    number = float(found[0].replace(',', '.'))
    return int(number) if number.is_integer() else None


def zeros_and_ones(where: str, values: Sequence[str]) -> tuple[int, ...]:
    """Labels of several classes.

    Raises:
        UserError: A value that is neither 0 nor 1.
    """
    numbers = tuple(whole_number(value) for value in values)
    wrong = {v.strip() for v, n in zip(values, numbers) if n not in (0, 1)}
    if wrong:
        raise UserError(
            f'{where}: labels must be 0 or 1, found {", ".join(sorted(wrong)[:4])}.'
        )
    return tuple(n for n in numbers if n is not None)
