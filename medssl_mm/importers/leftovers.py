"""What lies in a source folder and is not taken: nothing disappears in silence."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from medssl_mm.importers.naming import walk

# Lists, descriptions and papers; those that matter the importer has read.
DOCUMENTS = frozenset(
    '.bval .bvec .cfg .csv .html .json .jsonl .list .log .md .pdf .py .rst .rtf .sh '
    '.tsv .txt .xls .xlsx .xml .yaml .yml'.split()
)
SHOWN = 6  # kinds


def left_out(src: Path, used: Iterable[str]) -> list[str]:
    """Say which files below a folder were not taken, by kind, with an example each.

    Args:
        src (Path): The source folder.
        used (Iterable[str]): Paths of the files of all cases.

    Returns:
        list[str]: One line, or none. Documents do not count.
    """
    taken = set(used)
    rest = [
        (path, kind)
        for path, is_file in walk(src)
        if str(path) not in taken and (kind := _kind(path, is_file)) not in DOCUMENTS
    ]
    if rest:  # linked folders: one file has several paths
        known = {_identity(path) for path in taken}
        rest = [(path, kind) for path, kind in rest if _identity(path) not in known]
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path, kind in rest:
        kinds[kind].append(path)
    if not kinds:
        return []
    shown = sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind))
    parts = [
        f'{len(kinds[kind])} x {kind}, e.g. {kinds[kind][0].relative_to(src)}'
        for kind in shown[:SHOWN]
    ]
    parts += ['...'] * (len(shown) > SHOWN)
    return [f'{len(rest)} file(s) below {src} were not taken: {"; ".join(parts)}']


def _identity(path: str | Path) -> tuple[int, int] | str:
    try:
        status = os.stat(path)
    except OSError:
        return str(path)
    return status.st_dev, status.st_ino


def _kind(path: Path, is_file: bool) -> str:
    """Ending of a file, in lower case; or what is there instead of a file."""
    if path.is_dir():
        return 'folder that cannot be read'
    if not is_file:
        return 'broken link' if path.is_symlink() else 'no regular file'
    name = path.name.lower()
    for packed in ('.gz', '.zip', '.bz2', '.xz'):
        inner = Path(name.removesuffix(packed)).suffix
        if name.endswith(packed) and 1 < len(inner) < 6:
            return inner if inner in DOCUMENTS else inner + packed
    return Path(name).suffix or 'without ending'
