"""From file names to cases: what pairs, what is the id, who is the patient."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from medssl_mm.errors import UserError

_UNSAFE = re.compile(r'[^A-Za-z0-9._+-]+')


def is_sidecar(path: Path, src: Path) -> bool:
    """Whether macOS put a file beside the real one (``._x``, ``__MACOSX``)."""
    parts = path.relative_to(src).parts
    return '__MACOSX' in parts or any(part.startswith('._') for part in parts)


def find_files(src: Path, pattern: str = '**/*') -> list[Path]:
    """Files below a folder that match a glob, sorted, without sidecars.

    Raises:
        UserError: When the glob cannot be used.
    """
    try:
        paths = sorted(src.glob(pattern))
    except (ValueError, NotImplementedError) as error:
        raise UserError(
            f'glob {pattern!r} cannot be used: {error}; it must be relative to {src}'
        ) from None
    return [path for path in paths if path.is_file() and not is_sidecar(path, src)]


def by_wildcard(
    src: Path, pattern: str, takes: Callable[[Path], bool] | None = None
) -> dict[tuple[str, ...], Path]:
    """Files that match a glob, by what its wildcards matched.

    Args:
        src (Path): Folder.
        pattern (str): Glob relative to it; each run of ``*``, ``?`` and
            ``[...]``, and each ``**/``, is one part of the key. Its suffix
            matches in any case.
        takes (Callable, optional): Which files count. Defaults to None: all.

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
            if other != path:
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


def safe_case_id(text: str) -> str:
    """Turn a relative path or name into a case id (a folder name)."""
    case_id = _UNSAFE.sub('_', text.replace('/', '_')).strip('._')
    if not case_id:
        raise UserError(f'cannot make a case id from {text!r}')
    return case_id


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
    if pattern is None:
        return default
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f'patient pattern {pattern!r} is not a regular expression: {error}'
        ) from None
    if not compiled.groups:
        raise UserError(
            f'patient pattern {pattern!r} has no group; put brackets around '
            r'the patient id, e.g. "(\d+)_\d+\.png"'
        )
    found = compiled.search(text)
    if not found:
        raise UserError(
            f'patient pattern {pattern!r} does not match {text!r}; the '
            'first group of the pattern must be the patient id'
        )
    if 'patient' in compiled.groupindex:
        return found['patient']
    return found[1]
