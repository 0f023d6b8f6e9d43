"""Slice store: every slice of a data set, one chunk each, checked.

A store is a folder with ``dataset.json``, ``cases/<case_id>/{image,label}
.b2nd`` and ``case.json``, and ``splits/``. Volumes are ``(Z, H, W)``. One
blosc2 chunk holds one slice, so a slice is read without touching the others.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.store.case_info import (
    CASE_FILE,
    CaseInfo,
    complete_cases,
    load_json,
)
from medssl_mm.store.chunks import SliceReader
from medssl_mm.store.header import (
    DATASET_FILE,
    IMAGES,
    SLICES,
    kind_of,
    load_header,
)
from medssl_mm.store.volume_writer import StoreWriter

__all__ = ['CaseInfo', 'SliceStore', 'StoreWriter', 'open_store', 'to_source_grid']

MAX_INFOS = 256  # case descriptions kept per process


class SliceStore:
    """Reads a slice store. Cheap to open, picklable, safe to use after a fork.

    Open files and case descriptions are kept in bounded caches, so memory
    does not grow with the data set.

    Args:
        root (str | Path): Folder of the store.
        max_open (int): Files whose index (some kilobytes) is kept; no file
            stays open. Defaults to 2048.

    Raises:
        UserError: When the folder is no (finished) store.
    """

    kind = SLICES

    def __init__(self, root: str | Path, max_open: int = 2048):
        self.root = Path(root)
        self.max_open = max_open
        content = load_header(self.root, SLICES)
        self.name: str = content['name']
        self.modality: str = content['modality']
        self.units: str = content['units']
        self.classes: tuple[str, ...] = tuple(content['classes'])
        self.palette: list[list[int]] = content['palette']
        self.import_options: dict = content.get('import_options', {})
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._readers: OrderedDict[tuple, SliceReader] = OrderedDict()
        self._infos: OrderedDict[str, CaseInfo] = OrderedDict()
        self._case_ids = None

    def __getstate__(self):
        state = dict(self.__dict__)
        for name in ('_pid', '_lock', '_readers', '_infos', '_case_ids'):
            state.pop(name)
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._reset()

    def __repr__(self):
        return (
            f"{type(self).__name__}('{self.root}', name={self.name!r}, "
            f'cases={len(self.case_ids)})'
        )

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Ids of the complete cases, sorted."""
        if self._case_ids is None:
            self._case_ids = tuple(complete_cases(self.root / 'cases'))
        return self._case_ids

    def _cached(self, name: str, key, make, limit: int):
        """Get from a least-recently-used cache, one per process."""
        if self._pid != os.getpid():  # forked: share nothing with the parent
            case_ids = self._case_ids
            self._reset()
            self._case_ids = case_ids
        with self._lock:
            cache = getattr(self, name)
            if key in cache:
                cache.move_to_end(key)
                return cache[key]
            value = make()
            cache[key] = value
            while len(cache) > limit:
                cache.popitem(last=False)
            return value

    def infos(self):
        """Describe every case; yields a CaseInfo each."""
        return map(self.case, self.case_ids)

    def case(self, case_id: str) -> CaseInfo:
        """Describe a case.

        Raises:
            UserError: When the store has no such case.
        """
        return self._cached(
            '_infos', case_id, lambda: self._read_case(case_id), MAX_INFOS
        )

    def _read_case(self, case_id: str) -> CaseInfo:
        path = self.root / 'cases' / case_id / CASE_FILE
        if not path.is_file():
            shown = ', '.join(self.case_ids[:3])
            raise UserError(
                f'data set {self.root} has no case {case_id!r}; it has '
                f'{len(self.case_ids)} cases: {shown}, ...'
            )
        return CaseInfo.from_dict(load_json(path))

    def _reader(self, case_id: str, kind: str) -> SliceReader:
        return self._cached(
            '_readers',
            (case_id, kind),
            lambda: self._open(case_id, kind),
            self.max_open,
        )

    def _open(self, case_id: str, kind: str) -> SliceReader:
        path = self.root / 'cases' / case_id / f'{kind}.b2nd'
        if not path.is_file():
            info = self._read_case(case_id)  # explains an unknown case
            if kind == 'label' and not info.labelled:
                raise UserError(
                    f'case {case_id!r} of {self.root} has no label; use '
                    'only labelled cases here'
                )
        return SliceReader(path)

    def read_slice(self, case_id: str, index: int) -> np.ndarray:
        """Read one image slice, ``(H, W)``; touches one chunk."""
        return self._reader(case_id, 'image').read(index)

    def read_label_slice(self, case_id: str, index: int) -> np.ndarray:
        """Read one label slice, ``(H, W)`` uint8; touches one chunk."""
        return self._reader(case_id, 'label').read(index)

    def read_volume(self, case_id: str) -> np.ndarray:
        """Read the image, ``(Z, H, W)``."""
        return self._reader(case_id, 'image').read_all()

    def read_label_volume(self, case_id: str) -> np.ndarray:
        """Read the label, ``(Z, H, W)`` uint8."""
        return self._reader(case_id, 'label').read_all()

    def patient_of(self, case_id: str) -> str:
        """Tell the patient of a case."""
        return self.case(case_id).patient_id


_STORES: dict[tuple, object] = {}


def open_store(root: str | Path, kind: str | None = None):
    """Open a store once per process; a re-imported store is opened anew.

    Args:
        root (str | Path): Folder of the store.
        kind (str, optional): 'slices' or 'classification', refuses the
            other. Defaults to None: as the header of the folder says.

    Returns:
        SliceStore | ImageStore: The store.
    """
    path = Path(root).absolute()
    try:
        stamp = (path / DATASET_FILE).stat().st_mtime_ns
    except OSError:
        stamp = None
    key = (os.getpid(), str(path), stamp)
    if key not in _STORES:
        _STORES[key] = _reader_of(path)(root)
    if kind and _STORES[key].kind != kind:
        load_header(Path(root), kind)  # says what to use instead
    return _STORES[key]


def _reader_of(root: Path):
    path = root / DATASET_FILE
    if path.is_file() and kind_of(load_json(path)) == IMAGES:
        from medssl_mm.store.images import ImageStore

        return ImageStore
    return SliceStore


def to_source_grid(volume_zyx: np.ndarray, case: CaseInfo) -> np.ndarray:
    """Put a canonical ``(Z, H, W)`` volume back on the case's source grid.

    Without geometry (PNG, HDF5) the volume is returned as it is.
    """
    from medssl_mm.store.orientation import to_source_axes

    if tuple(volume_zyx.shape) != case.shape:
        raise ValueError(
            f'case {case.case_id!r} has shape {case.shape} (Z, H, W), got a '
            f'volume of {tuple(volume_zyx.shape)}'
        )
    if case.source_affine is None:
        return volume_zyx
    return to_source_axes(volume_zyx, case.source_affine)
