"""Open a store of either kind, once per process."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, overload

from medssl_mm.store.header import (
    DATASET_FILE,
    GENERATION_FILE,
    IMAGES,
    kind_of,
    load_header,
    load_json,
)
from medssl_mm.store.images import ImageStore
from medssl_mm.store.recent import Recent
from medssl_mm.store.volumes import SliceStore

# More than one job reads at a time; one more per predicted volume passes by.
_STORES: Recent[SliceStore | ImageStore] = Recent(limit=16)


@overload
def open_store(root: str | Path, kind: Literal['slices']) -> SliceStore: ...
@overload
def open_store(root: str | Path, kind: Literal['classification']) -> ImageStore: ...
@overload
def open_store(
    root: str | Path, kind: str | None = None
) -> SliceStore | ImageStore: ...
def open_store(root: str | Path, kind: str | None = None) -> SliceStore | ImageStore:
    """Open a store once per process; a re-imported store is opened anew.

    Args:
        root: Folder of the store.
        kind: 'slices' or 'classification', refuses the other. Defaults to None:
            as the header of the folder says.

    Returns:
        SliceStore | ImageStore: The store.

    Raises:
        UserError: When the folder is no (finished) store of this kind.
    """
    path = Path(root).absolute()
    stamps = _stamp(path / DATASET_FILE), _stamp(path / GENERATION_FILE)
    store = _STORES.get((str(path), stamps), lambda: _reader_of(path)(root))
    if kind and store.kind != kind:
        load_header(Path(root), kind)  # says what to use instead
    return store


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _reader_of(root: Path) -> type[SliceStore | ImageStore]:
    path = root / DATASET_FILE
    if path.is_file() and kind_of(load_json(path)) == IMAGES:
        return ImageStore
    return SliceStore
