"""From file names to cases: what pairs, what is the id, who is the patient."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from medssl_mm.errors import UserError

# Bytes of a case id: file systems take names of 255, and results add to them.
LONGEST_ID = 150
_MARKS = '._+-'  # what an id may have besides letters and digits
_LITTER = ('Thumbs.db', 'desktop.ini')


def is_sidecar(path: Path, src: Path) -> bool:
    """Whether macOS put a file beside the real one (``._x``, ``__MACOSX``)."""
    return any(map(_is_sidecar, path.relative_to(src).parts))


def _is_sidecar(name: str) -> bool:
    return name == '__MACOSX' or name.startswith('._')


def walk(
    src: Path, enters: Callable[[Path], bool] | None = None
) -> Iterator[tuple[Path, bool]]:
    """Everything below a folder that is no folder: (path, whether it is a file).

    Linked folders are followed, each folder is entered once. What macOS or Windows
    puts beside real files, and hidden files and folders, are passed over. A broken
    link, what is neither file nor folder (a pipe, a socket) and a folder that cannot
    be read are no files.

    Args:
        src (Path): Folder.
        enters (Callable, optional): Which of the folders below are entered. Defaults
            to None: all.
    """
    seen = set()
    closed: list[OSError] = []
    for folder, folders, names in os.walk(src, onerror=closed.append, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a link back
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(
            name
            for name in folders
            if name[0] != '.'
            and name != '__MACOSX'
            and (enters is None or enters(Path(folder, name)))
        )
        for name in sorted(names):
            if name[0] != '.' and name not in _LITTER:
                path = Path(folder, name)
                yield path, path.is_file()
    for error in closed:
        if error.filename is not None:
            yield Path(error.filename), False


def find_files(src: Path, pattern: str = '**/*') -> list[Path]:
    """Files of :func:`walk` that match a glob, sorted; without a glob all of them.

    The folders that a glob names before its first wildcard are taken as they are
    called, also ``..`` and hidden ones.

    Raises:
        UserError: When the glob cannot be used.
    """
    if pattern == '**/*':
        return sorted(path for path, is_file in walk(src) if is_file)
    parts = Path(pattern).parts
    if not parts or Path(pattern).is_absolute():
        raise UserError(
            f'glob {pattern!r} cannot be used: it must be relative to {src}, e.g. '
            "'images/*.png'"
        )
    named = 0
    while named < len(parts) - 1 and not re.search(r'[*?[]', parts[named]):
        named += 1
    start, parts = src.joinpath(*parts[:named]), parts[named:]

    def enters(folder: Path) -> bool:
        return _matches(folder.relative_to(start).parts, parts, folder=True)

    return sorted(
        path
        for path, is_file in walk(start, enters)
        if is_file and _matches(path.relative_to(start).parts, parts)
    )


def _matches(
    names: Sequence[str], pattern: Sequence[str], folder: bool = False
) -> bool:
    """Whether a path matches a glob, part by part; a folder: whether its files may."""
    if not names:
        return folder and bool(pattern) or all(part == '**' for part in pattern)
    if not pattern:
        return False
    if pattern[0] == '**':
        return _matches(names, pattern[1:], folder) or _matches(
            names[1:], pattern, folder
        )
    return fnmatch.fnmatchcase(names[0], pattern[0]) and _matches(
        names[1:], pattern[1:], folder
    )


def by_wildcard(
    src: Path,
    pattern: str,
    takes: Callable[[Path], bool] | None = None,
    rivals: dict[tuple[str, ...], list[Path]] | None = None,
) -> dict[tuple[str, ...], Path]:
    """Files that match a glob, by what its wildcards matched.

    Args:
        src (Path): Folder.
        pattern (str): Glob relative to it; each run of ``*``, ``?`` and
            ``[...]``, and each ``**/``, is one part of the key. Its suffix
            matches in any case.
        takes (Callable, optional): Which files count. Defaults to None: all.
        rivals (dict, optional): Gets the files that have one key with another,
            by that key. Defaults to None: there must be none.

    Raises:
        UserError: When the glob cannot be used, or two files have one key.
    """
    end = re.search(r'(\.[A-Za-z]+)*$', pattern)
    suffix = end[0] if end else ''
    stem = pattern[: len(pattern) - len(suffix)]
    any_case = ''.join(f'[{c.lower()}{c.upper()}]' if c != '.' else c for c in suffix)
    expression = re.compile(f'{_expression(stem)}(?i:{re.escape(suffix)})')
    found: dict[tuple[str, ...], Path] = {}
    for path in find_files(src, stem + any_case):
        match = expression.fullmatch(path.relative_to(src).as_posix())
        if match and (takes is None or takes(path)):
            key = tuple((group or '').strip('/') for group in match.groups())
            other = found.setdefault(key, path)
            if other != path and rivals is not None:
                rivals.setdefault(key, [other]).append(path)
            elif other != path:
                raise UserError(
                    f'glob {pattern!r}: {other} and {path} cannot be told apart; '
                    'keep one of them'
                )
    return found


def _expression(pattern: str) -> str:
    """Regular expression of a glob; each run of wildcards is one group."""
    tokens = re.findall(r'\*\*/|(?:\*|\?|\[[^]]+\])+|[^*?[]+|.', pattern)
    expression = ''
    for token in tokens:
        if token == '**/':
            expression += '(.*/)?'
        elif token[0] in '*?[':
            wild = re.sub(r'\*+', '[^/]*', token.replace('[!', '[^'))
            expression += f'({wild.replace("?", "[^/]")})'
        else:
            expression += re.escape(token)
    return expression


def digest_of(text: str) -> str:
    """Eight hexadecimal digits that tell texts apart."""
    return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]


def safe_case_id(text: str) -> str:
    """Turn a relative path or name into a case id (a folder name).

    Letters and digits of every script stay; what is empty then, or too long for a
    file name, gets a digest of the text.
    """
    composed = unicodedata.normalize('NFC', text).replace('/', '_')
    kept = (
        c if c in _MARKS or unicodedata.category(c)[0] in 'LMN' else ' '
        for c in composed
    )
    case_id = re.sub(' +', '_', ''.join(kept)).strip('._')
    if not case_id:
        return f'case-{digest_of(text)}'
    encoded = case_id.encode()
    if len(encoded) > LONGEST_ID:
        start = encoded[: LONGEST_ID - 9].decode(errors='ignore')
        return f'{start}-{digest_of(text)}'
    return case_id


def readable(text: str) -> str:
    """A name as text that every file can hold; other bytes of it as their numbers."""
    return text.encode(errors='backslashreplace').decode()


def folded(case_id: str) -> str:
    """What two ids share that a file system may take for one name."""
    return unicodedata.normalize('NFC', case_id).casefold()


def find_patient(
    pattern: str | None, text: str, default: str
) -> tuple[str, tuple[str, str] | None]:
    """As :func:`match_patient`, but what does not match is a finding.

    Returns:
        tuple: patient (``default`` or the text where nothing matches); (code,
        message) of the finding, or None.

    Raises:
        UserError: When the pattern is invalid or has no group.
    """
    try:
        return readable(match_patient(pattern, text, default)), None
    except NoMatchError as error:
        return default or text, ('patient-pattern', f'{error}.')


class NoMatchError(UserError):
    """A name that a pattern does not match."""


def match_patient(pattern: str | None, text: str, default: str) -> str:
    """Extract the patient id from a path with a regular expression.

    Args:
        pattern (str, optional): The first group (or the group ``patient``)
            is the id; None returns ``default``.
        text (str): What is searched, e.g. the path relative to the source.
        default (str): Id used without a pattern.

    Raises:
        UserError: When the pattern is invalid, has no group or does not
            match.
    """
    return default if pattern is None else first_group(pattern, text, 'patient')


def first_group(pattern: str, text: str, what: str) -> str:
    """What the group of a regular expression matches in a text.

    Args:
        pattern (str): The group called as ``what`` counts, else the first one.
        text (str): What is searched.
        what (str): 'patient' or 'slice', for the messages.

    Raises:
        UserError: When the pattern is invalid or has no group.
        NoMatchError: When it does not match, or its group matches nothing.
    """
    meant = dict(patient='patient id', slice='slice number')[what]
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f'{what} pattern {pattern!r} is not a regular expression: {error}'
        ) from None
    if not compiled.groups:
        raise UserError(
            f'{what} pattern {pattern!r} has no group; put brackets around '
            rf'the {meant}, e.g. "(\d+)_\d+\.png"'
        )
    found = compiled.search(text)
    if not found:
        raise NoMatchError(
            f'{what} pattern {pattern!r} does not match {text!r}; the '
            f'first group of the pattern must be the {meant}'
        )
    group = found[what if what in compiled.groupindex else 1]
    if not (group or '').strip():
        raise NoMatchError(
            f'{what} pattern {pattern!r} matches {text!r}, but its group matches '
            f'nothing there; it must be the {meant}'
        )
    return group
