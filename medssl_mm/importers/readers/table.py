"""Lists as text: CSV tables with a header, and plain lines."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TextIO, TypeVar, cast

from medssl_mm.errors import UserError

T = TypeVar('T')
_DAMAGED = (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error)


def read_rows(
    path: Path, columns: Sequence[str] = (), header: bool = True
) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV file with a header: (line number, row by column).

    Args:
        path (Path): The file, UTF-8; a byte order mark is allowed, and
            compression (.gz, or a .zip with one file).
        columns (Sequence[str]): Columns that must be there.
        header (bool): Whether the first line names the columns; else they are
            'column 1', 'column 2' ... Defaults to True.

    Raises:
        UserError: When it is no such file, or a column is missing.
    """
    try:
        with _open_text(path) as file:
            reader = csv.DictReader(file, None if header else ['column 1'])
            rows: list[tuple[int, dict[str, str]]] = []
            for row in reader:
                if not header:
                    row = _numbered(row)
                if (
                    None in row
                    or None in row.values()
                    or (rows and len(row) != len(rows[0][1]))
                ):
                    raise UserError(
                        f'{path}, line {reader.line_num}: expected '
                        f'{len(rows[0][1] if rows else reader.fieldnames or ())} '
                        f'columns as in the {"header" if header else "first line"}; '
                        'found another number.'
                    )
                rows.append((reader.line_num, row))
    except (UnicodeDecodeError, csv.Error, EOFError, *_DAMAGED) as error:
        raise UserError(f'label list {path} is no CSV file: {error}') from None
    except OSError as error:
        raise UserError(f'label list {path}: {error.strerror}') from None
    if not rows:
        raise UserError(f'label list {path} holds no rows below its header')
    present = list(rows[0][1])
    missing = [name for name in columns if name not in present]
    if missing:
        raise UserError(
            f'label list {path} has no column {", ".join(missing)}; its '
            f'columns are {", ".join(map(repr, present[:16]))}'
        )
    return rows


def _numbered(row: dict) -> dict[str, str]:
    """A row without header, its cells by their places."""
    cells = [row['column 1'], *row.get(None, ())]
    return {f'column {place}': cell for place, cell in enumerate(cells, 1)}


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file that may be compressed."""
    with ExitStack() as stack:
        file: IO[bytes]
        if path.suffix == '.gz':
            file = cast(IO[bytes], stack.enter_context(gzip.open(path)))
        elif path.suffix == '.zip':
            archive = stack.enter_context(zipfile.ZipFile(path))
            names = archive.namelist()
            if len(names) != 1:
                raise UserError(
                    f'label list {path} holds {len(names)} files; unpack it and name '
                    'the right one'
                )
            file = stack.enter_context(archive.open(names[0]))
        else:
            file = stack.enter_context(open(path, 'rb'))
        yield io.TextIOWrapper(file, encoding='utf-8-sig', newline='')


def read_lines(path: Path, expected: str = '') -> list[tuple[int, str]]:
    """Read the lines of a list that are not blank: (line number, text).

    Args:
        path (Path): The file, UTF-8; a byte order mark is allowed.
        expected (str): What the lines should be, for the message.

    Raises:
        UserError: Unreadable, or nothing in it.
    """
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'list {path} cannot be read: {error}') from None
    kept = [
        (number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()
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
    """A whole number, also as pandas writes a column with gaps ('3.0')."""
    number = text.strip()
    whole, point, rest = number.partition('.')
    if point and rest.strip('0'):
        return None
    return int(whole) if whole.isdecimal() else None


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
