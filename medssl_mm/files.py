"""Files that are either complete or absent, and folders of one owner."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medssl_mm.errors import UserError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary name to write to; move it into place at the end.

    After an error the file is what it was before, and nothing else is left.

    Args:
        path (str | Path): The file, in an existing folder.

    Yields:
        Path: Name in the same folder and with the same ending.

    Raises:
        UserError: The file cannot be written.

    Example:
        >>> with whole_file('figure.png') as temporary:
        ...     figure.savefig(temporary)
    """
    path = Path(path)
    temporary = path.with_name(f'.{os.getpid()}.{path.name}')
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f'cannot write {path}: {error.strerror or error}') from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: str | Path) -> Iterator[int | None]:
    """Be the only process, and thread, inside a folder.

    A process that dies lets the next one in, unless a child of it has
    inherited the descriptor: then the folder is free when the child ends, too.
    On network drives this holds between machines only where the drive
    supports locks.

    Args:
        folder (str | Path): Made if need be; gets the empty file ``.lock``.

    Yields:
        int | None: Descriptor of the lock; None while another one is inside.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / '.lock', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock = file.fileno()
        except BlockingIOError:
            lock = None
        yield lock


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes to a file, as :func:`whole_file` does.

    The folder is made if need be.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, content: Any, indent: int | None = 1) -> None:
    """Write JSON to a file, as :func:`whole_file` does."""
    write_whole(path, json.dumps(content, indent=indent) + '\n')


def shipped(name: str) -> Path:
    """Find a folder that comes with the package: 'configs', 'tools'.

    Beside the package, or in it when installed.

    Raises:
        UserError: It is in neither place.
    """
    package = Path(__file__).resolve().parent
    for folder in (package.parent / name, package / '.mim' / name):
        if folder.is_dir():
            return folder
    raise UserError(
        f'the {name} are neither in {package.parent} nor in {package}/.mim; '
        'install the package again'
    )
