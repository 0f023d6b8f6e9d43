"""What both writers of a store promise: all of it, or what was there."""

from __future__ import annotations

import hashlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from medssl_mm.errors import UserError
from medssl_mm.files import locked, write_json, write_whole
from medssl_mm.store.header import (
    DATASET_FILE,
    GENERATION,
    GENERATION_FILE,
    SLICES,
    STAGING,
    load_json,
)

SPLITS = 'splits'
_REPLACED = 'replaced'
_JOURNAL = 'journal.json'  # what is being moved, while it is
_DONE = f'{STAGING}-done'  # prefix of what is left of a finished import
Self = TypeVar('Self', bound='StagedWriter')


class StagedWriter(ABC):
    """Writes a store so that no reader ever sees a half-written one.

    1. :meth:`stage` makes ``<root>/.import``, or continues what an
       interrupted import left there.
    2. ``add_case`` writes there. Writers are picklable: workers may call it
       at the same time.
    3. :meth:`finish` moves everything into place, a mark of its own first and the
       header, which has the mark too, last. When that fails, all is moved back: the
       store is what it was. When it is killed, mark and header differ: readers
       refuse the store, and the next :meth:`stage` moves all back by the journal.
    4. Or :meth:`discard` drops what was staged.

    A subclass says what a case is.

    Args:
        root (Path): Folder of the store.
        header (dict): Content of ``dataset.json``.
        overwrite (bool): Whether the store starts anew. Defaults to False.

    Attributes:
        folder (str): Folder that holds the cases while they are staged.
    """

    folder: str

    def __init__(self, root: Path, header: dict, overwrite: bool = False):
        self.root = Path(root)
        self.header = header
        self.overwrite = overwrite

    @classmethod
    def stage(cls: type[Self], root: str | Path, header: dict, overwrite: bool) -> Self:
        """Make the staging folder, or continue in that of an earlier import.

        Args:
            root: Folder of the store, made if missing.
            header: Header that the store is going to have.
            overwrite: Drop what an earlier import staged, and accept any store;
                :meth:`finish` drops its cases and splits.

        Raises:
            UserError: The folder holds another data set, cannot be made, or another
                import is writing it.
        """
        writer = cls(Path(root), header, overwrite)
        root, staging = writer.root, writer.staging
        if root.exists() and not root.is_dir():
            raise UserError(f'{root} is a file; give a folder for the store')
        headers = [root / DATASET_FILE, staging / DATASET_FILE]
        if root.is_dir() and not any(path.is_file() for path in headers):
            others = [p.name for p in root.iterdir() if p.name != STAGING]
            if others:
                raise UserError(
                    f'{root} is not empty and no store (it has '
                    f'{sorted(others)[:3]}); give a new folder'
                )
        for path in headers:
            if path.is_file() and not overwrite:
                _check_same(path, load_json(path), header)
        try:
            with locked(staging) as lock:
                if lock is None:
                    raise UserError(f'another import is writing {root}; wait for it')
                _put_back(staging, root)
                if overwrite:
                    shutil.rmtree(staging, ignore_errors=True)
                (staging / cls.folder).mkdir(parents=True, exist_ok=True)
                write_json(staging / DATASET_FILE, header)
        except OSError as error:
            raise UserError(f'cannot make {root}: {error.strerror}') from None
        return writer

    @property
    def staging(self) -> Path:
        """Folder of what is not published yet."""
        return self.root / STAGING

    @property
    @abstractmethod
    def staged(self) -> list[str]:
        """Complete cases that wait for :meth:`finish`, sorted."""

    @property
    @abstractmethod
    def published(self) -> list[str]:
        """Cases of the finished store, if there is one that stays; sorted."""

    @abstractmethod
    def read_case(self, case_id: str) -> Any:
        """Describe a staged or published case; None when there is none."""

    @abstractmethod
    def refresh_case(self, info: Any) -> None:
        """Rewrite the description of a case whose pixels stay."""

    @abstractmethod
    def drop_staged(self, case_id: str) -> None:
        """Drop a case that waits for :meth:`finish`."""

    @abstractmethod
    def open(self) -> Any:
        """Open the finished store."""

    @abstractmethod
    def _prepare(self, remove: set[str]) -> tuple[list[str], list[str], dict]:
        """Write what is still missing in the staging folder.

        Args:
            remove: Published cases to drop.

        Returns:
            tuple: Paths below the staging folder to publish; paths below the
            store to take away; what the header tells besides, under
            :data:`~.header.GENERATION` a digest of all cases as they will be.
        """

    @abstractmethod
    def _close(self) -> None:
        """Close what this process has open in the staging folder."""

    def finish(self, remove: Iterable[str] = ()) -> Any:
        """Publish the staged cases and the header.

        Args:
            remove: Published cases to drop, because their source is no longer
                usable.

        Returns:
            SliceStore | ImageStore: The store, opened.

        Raises:
            UserError: It cannot be written (e.g. disk full); the store is
                what it was, and what was staged waits on.
        """
        try:
            new, gone, extra = self._prepare(set(remove))
            extra[GENERATION] = self._mark(extra[GENERATION])
            write_json(self.staging / DATASET_FILE, dict(self.header, **extra))
            write_whole(self.staging / GENERATION_FILE, extra[GENERATION] + '\n')
            self._close()
            _exchange(
                self.staging,
                self.root,
                [GENERATION_FILE, *new, DATASET_FILE],
                [*gone, *[SPLITS] * self.overwrite],
            )
            (self.root / SPLITS).mkdir(exist_ok=True)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f'cannot write {self.root}: {error}. Is the disk full? Run the '
                'import again to finish it.'
            ) from None
        self._clear(extra[GENERATION])
        return self.open()

    def _mark(self, digest: str) -> str:
        """Mark of this publication: another one than that of what is in place."""
        path = self.root / GENERATION_FILE
        if path.is_file() and path.read_text().strip() == digest:
            return hashlib.sha256(digest.encode()).hexdigest()[:16]
        return digest

    def _clear(self, generation: str) -> None:
        """Take the staging folder away, at once: killed in between, it is gone."""
        done = self.root / f'{_DONE}-{generation}'
        try:
            os.replace(self.staging, done)
        except OSError:
            done = self.staging
        shutil.rmtree(done, ignore_errors=True)

    def discard(self) -> None:
        """Drop what was staged; a root that holds nothing else goes too."""
        self._close()
        shutil.rmtree(self.staging, ignore_errors=True)
        if self.root.is_dir() and not any(self.root.iterdir()):
            self.root.rmdir()


def _exchange(staging: Path, root: Path, new: list[str], gone: list[str]) -> None:
    """Move files and folders into place, all or none.

    What was there is kept in the staging folder until all is in place. A journal
    tells the next import what was being moved, should this one be killed.

    Args:
        staging: Folder of the new ones, on the same drive.
        root: Folder they go to.
        new: Paths below ``staging``, the last moved last.
        gone: Paths below ``root`` to take away, when the first of ``new`` is there.

    Raises:
        OSError: Something cannot be moved; everything is moved back.
    """
    kept = staging / _REPLACED
    undo: list[Callable[[], None]] = []

    def move(source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
        undo.append(lambda: os.replace(target, source))

    def put(name: str) -> None:
        if (root / name).is_dir():
            move(root / name, kept / name)
        elif (root / name).exists():
            _keep_file(root / name, kept / name, undo)
        move(staging / name, root / name)

    write_json(staging / _JOURNAL, dict(new=new))
    try:
        put(new[0])
        for name in gone:
            if (root / name).exists():
                move(root / name, kept / name)
        for name in new[1:]:
            put(name)
    except BaseException:
        for step in reversed(undo):
            step()
        raise


def _put_back(staging: Path, root: Path) -> None:
    """Undo a publication that was killed, and clear what others left."""
    for old in root.glob(f'{_DONE}-*'):
        shutil.rmtree(old, ignore_errors=True)
    for folder in (root, root / SPLITS):
        for half in folder.glob('.[0-9]*.*'):  # of files.whole_file
            if not _is_running(half.name.split('.')[1]):
                half.unlink(missing_ok=True)
    kept, journal = staging / _REPLACED, staging / _JOURNAL
    if journal.is_file():
        new = load_json(journal)['new']
        moved = [name for name in new if not (staging / name).exists()]
        if moved == new:  # all of it is in place
            shutil.rmtree(kept, ignore_errors=True)
            moved = []
        for name in reversed(moved):
            os.replace(root / name, staging / name)
    # A folder before what is in it. Imports of before had no journal: what they had
    # put in place stays.
    for path in sorted(kept.rglob('*')):
        target = root / path.relative_to(kept)
        if path.exists() and not target.exists():
            os.replace(path, target)
    shutil.rmtree(kept, ignore_errors=True)
    journal.unlink(missing_ok=True)


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ValueError:  # no name of ours
        return True
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _keep_file(path: Path, kept: Path, undo: list[Callable[[], None]]) -> None:
    """Give a file a second name; it is in place until its heir replaces it."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.unlink(missing_ok=True)
    try:
        os.link(path, kept)
    except OSError:  # a drive without links
        shutil.copy2(path, kept)
    undo.append(lambda: os.replace(kept, path))


def _check_same(path: Path, found: dict, wanted: dict) -> None:
    """Refuse to go on with a store that was made with other settings."""
    kinds = {'kind': SLICES}
    for key in (
        'kind',
        'name',
        'modality',
        'units',
        'task',
        'classes',
        'channels',
        'size',
        'import_options',
        'version',
    ):
        default = kinds.get(key)
        known = found.get(key, default)
        if key == 'import_options':
            known = _with_palette(path, found, wanted)
        if known != wanted.get(key, default):
            raise UserError(
                f'{path} was made with {key}={_short(known)}, now it '
                f'is {_short(wanted.get(key))}; give another --out, or import '
                'anew with --overwrite'
            )


def _with_palette(path: Path, found: dict, wanted: dict) -> dict | None:
    """Options that a store was made with, the colours of its masks among them.

    Stores of before have the name of the palette's file. The colours are then those
    of the header; grey values are not there, so the palette of now is taken for the
    one of then, unless its file was written after the store.
    """
    known, now = found.get('import_options'), wanted.get('import_options') or {}
    then, palette = (known or {}).get('palette'), now.get('palette')
    if not known or not isinstance(then, str) or not isinstance(palette, dict):
        return known
    if any(isinstance(value, list) for value in palette.values()):
        then = dict(zip(found.get('classes', ()), found.get('palette', ())))
    elif then == str(palette) or not _is_newer(then, path):
        then = palette
    return {**known, 'palette': then}


def _is_newer(name: str, path: Path) -> bool:
    """Whether a file is there that was written after another one."""
    try:
        return os.stat(name).st_mtime_ns > path.stat().st_mtime_ns
    except (OSError, ValueError):  # not there, or no name
        return False


def _short(value: object, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + '...'
