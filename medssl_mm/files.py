"""Files that are either complete or absent, and folders of one owner."""

import codecs
import csv
import errno
import fcntl
import functools
import hashlib
import json
import os
import re
import socket
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from medssl_mm.errors import UserError

_LOCK = '.lock'
# Folder that the process which started this one has locked for it.
_LOCKED = 'MEDSSL_LOCKED'
LARGEST_TEXT = 1 << 30  # bytes of a list or description


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
    except Exception as error:
        # How torch.save, and safetensors, meet a full disk.
        words = ('PytorchStreamWriter', 'iostream', 'inline_container', 'I/O error')
        if isinstance(error, UserError) or not any(w in str(error) for w in words):
            raise
        raise UserError(
            f'cannot write {path}: is the disk full? ({str(error).splitlines()[0]})'
        ) from error
    finally:
        with suppress(OSError):  # none there, or a read-only disk: said above
            temporary.unlink()


@contextmanager
def locked(folder: str | Path) -> Iterator[int | None]:
    """Be the only process, and thread, inside a folder.

    A process that dies lets the next one in, unless a child of it has
    inherited the descriptor: then the folder is free when the child ends, too.
    On network drives this holds between machines only where the drive
    supports locks.

    Args:
        folder (str | Path): Made if need be; gets the file ``.lock``, which says
            who was inside last.

    Yields:
        int | None: Descriptor of the lock; None while another one is inside.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / _LOCK, 'a', encoding='utf-8') as file:
        lock: int | None = file.fileno()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock = None
        except OSError:  # a drive without locks
            pass
        if lock is not None:
            with suppress(OSError):  # a full disk
                file.truncate(0)
                file.write(f'process {os.getpid()} on {socket.gethostname()}')
                file.flush()
        yield lock


def inherited_lock(folder: str | Path) -> dict[str, str]:
    """Environment of a child that works in a folder which this process has locked."""
    return {_LOCKED: str(Path(folder).resolve())}


def claim(folder: str | Path) -> ExitStack:
    """Lock a folder until the result is closed, or the process ends.

    What the starting process has locked for this one counts as its own.

    Raises:
        UserError: Another process works there; says which.
    """
    stack = ExitStack()
    if os.environ.get(_LOCKED) == str(Path(folder).resolve()):
        return stack
    if stack.enter_context(locked(folder)) is None:
        stack.close()
        owner = Path(folder, _LOCK).read_text(encoding='utf-8', errors='replace')
        raise UserError(
            f'another run works in {folder} ({owner or "its process is unknown"}): '
            'wait for its end, end it, or choose another --work-dir'
        )
    return stack


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


_RELATIVES = ('cp1252', 'iso8859-15', 'cp1250', 'iso8859-2')
_MARKS = {
    codecs.BOM_UTF8: 'utf-8-sig',
    codecs.BOM_UTF32_LE: 'utf-32',  # begins as that of UTF-16 does
    codecs.BOM_UTF32_BE: 'utf-32',
    codecs.BOM_UTF16_LE: 'utf-16',
    codecs.BOM_UTF16_BE: 'utf-16',
}


def encoding_of(start: bytes) -> str:
    """Encoding of a text by its first bytes: by its mark, else by its zeros."""
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    if start[1:2] == b'\0' and start[:1] != b'\0':
        return 'utf-16-le'
    if start[:1] == b'\0' and start[1:2] != b'\0':
        return 'utf-16-be'
    return 'utf-8'


def decode(content: bytes, path: str | Path, what: str = 'file') -> str:
    """Turn what another program wrote into text without byte order mark.

    Windows-1252 is taken, with a line on stderr, where other encodings of one byte
    would give the same letters.

    Raises:
        UserError: None of UTF-8, UTF-16 and, without a doubt, Windows-1252.
    """
    try:
        text = content.decode(encoding_of(content[:4]))
    except UnicodeDecodeError as error:
        text = _western(content)
        if not text:
            raise UserError(
                f'{what} {path} is neither UTF-8 nor UTF-16 (byte {error.start}); '
                'save it as UTF-8 (Excel: "CSV UTF-8")'
            ) from None
        word = re.search(r'\w*[^\W\x00-\x7f]\w*', text)
        _tell(
            f'note: {what} {path} is not UTF-8; it was read as Windows-1252, e.g. '
            f'{word[0] if word else ""!r}. Save it as UTF-8 if that is wrong'
        )
    if '\0' in text:
        raise UserError(f'{what} {path} is no text: it holds zero bytes')
    return text


def _western(content: bytes) -> str:
    """Text of Windows-1252, if its letters are those of its relatives; else ''.

    The encodings of western and central Europe have ä, é, ß and others in one place.
    Words of other scripts have several bytes above 127 in a row.
    """
    if re.search(rb'[\x80-\xff]{3}', content):
        return ''
    try:
        texts = {content.decode(name) for name in _RELATIVES}
    except UnicodeDecodeError:
        return ''
    text = texts.pop()
    letters = all(letter.isalpha() for letter in text if letter > '\x7f')
    return text if not texts and letters else ''


@functools.cache
def _tell(text: str) -> None:
    """Write a line on stderr, once."""
    print(text, file=sys.stderr)


def delimiter_of(text: str, columns: Sequence[str] = ()) -> tuple[str, int]:
    """Find what parts the columns of a table: a comma, a semicolon or a tabulator.

    Args:
        text (str): The table.
        columns (Sequence[str]): Columns that must be there. Defaults to ().

    Returns:
        tuple: The delimiter that parts most of these columns, then most columns of
        the first line; the place where the table begins, which is behind the line
        'sep=;' of Excel.
    """
    said = re.match(r'\s*"?sep=([,;\t|])"?[\r\n]+', text, re.I)
    if said:
        return said[1], said.end()
    first = next((line for line in text.splitlines() if line.strip()), '')

    def fits(delimiter: str) -> tuple[int, int]:
        names = [n.strip() for n in next(csv.reader([first], delimiter=delimiter), [])]
        return len(set(columns) & set(names)), len(names)

    return max(',;\t', key=fits), 0


def file_hash(path: str | Path, algorithm: str = 'sha256', **settings: Any) -> str:
    """Hash a file piece by piece.

    Args:
        path (str | Path): The file.
        algorithm (str): Of ``hashlib``. Defaults to 'sha256'.
        **settings: Of the algorithm, such as ``digest_size``.

    Returns:
        str: Hexadecimal digits.
    """
    digest = getattr(hashlib, algorithm)(**settings)
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_regular(path: str | Path, limit: int | None = None) -> bytes:
    """Read a file; a pipe or device would keep the reader waiting for ever.

    Args:
        path (str | Path): The file.
        limit (int, optional): Most bytes that it may have. Defaults to None.

    Raises:
        OSError: Missing, unreadable, no regular file, or larger than allowed.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, 'no regular file', str(path))
    if limit is not None and status.st_size > limit:
        reason = f'{status.st_size} bytes, more than the {limit} it may have'
        raise OSError(errno.EFBIG, reason, str(path))
    return Path(path).read_bytes()


def read_text(path: str | Path, what: str = 'file') -> str:
    """Read a text that another program wrote: UTF-8, or UTF-16 with or without mark.

    Args:
        path (str | Path): The file.
        what (str): What it is, for messages. Defaults to 'file'.

    Returns:
        str: Its text without byte order mark, line ends as they are.

    Raises:
        UserError: Missing, no regular file, or in another encoding.
    """
    try:
        content = read_regular(path, LARGEST_TEXT)
    except OSError as error:
        raise UserError(f'{what} {path}: {error.strerror}') from None
    return decode(content, path, what)


def read_json(path: str | Path, what: str = 'file') -> Any:
    """Read JSON that a person or another program wrote, as :func:`read_text` does.

    Raises:
        UserError: Missing, or not JSON.
    """
    try:
        return json.loads(read_text(path, what))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{what} {path} is not JSON: {error}') from None


def last_checkpoint(folder: str | Path) -> Path | None:
    """Find the checkpoint that a training run wrote last.

    Args:
        folder (str | Path): Its work directory, which may have been moved or copied
            since.

    Returns:
        Path | None: None also where ``last_checkpoint`` was cut short, or what it
        names is gone.
    """
    pointer = Path(folder, 'last_checkpoint')
    if not pointer.is_file():
        return None
    text = pointer.read_text(encoding='utf-8', errors='replace')
    path = Path(text.strip('\0 \n'))
    found = (one for one in (Path(folder, path.name), path) if one.is_file())
    return next(found, None)


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


def data_config(name: str) -> Path:
    """Where a data set of ``configs/data`` is described; the file need not exist.

    Args:
        name (str): Of the data set, as its store (``ichallenge-amd``) or as its
            file (``ichallenge_amd``).
    """
    return shipped('configs') / 'data' / f'{name.replace("-", "_")}.py'


def config_path(text: str | Path) -> Path:
    """Find a config by its path, also one that comes with the package.

    ``medssl_mm::PATH`` is inside the shipped configs, and so is ``configs/PATH`` where
    the working directory has no such file.

    Args:
        text (str | Path): As it was given.
    """
    path = Path(text)
    prefix, colons, inside = str(text).partition('medssl_mm::')
    if colons and not prefix:
        return shipped('configs') / inside
    if path.parts[:1] == ('configs',) and not path.exists():
        found = shipped('configs').joinpath(*path.parts[1:])
        return found if found.is_file() else path
    return path
