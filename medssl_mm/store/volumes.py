"""Slice store: every slice of a data set, one chunk each, checked.

A store is a folder with ``dataset.json``, ``cases/<case_id>/{image,label}
.b2nd`` and ``case.json``, and ``splits/``. Volumes are ``(Z, H, W)``, with
several channels (MR sequences, contrast phases) ``(Z, C, H, W)``. One blosc2
chunk holds one slice, so a slice is read without touching the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.store.case_info import CASE_FILE, CaseInfo, complete_cases
from medssl_mm.store.chunks import ChunkReader
from medssl_mm.store.header import SLICES, load_as, load_header
from medssl_mm.store.orientation import to_source_axes
from medssl_mm.store.recent import Recent

MAX_INFOS = 256  # case descriptions kept per process


class SliceStore:
    """Reads a slice store. Cheap to open, picklable, safe to use after a fork.

    Readers and case descriptions are kept in bounded caches, so memory does
    not grow with the data set.

    Args:
        root (str | Path): Folder of the store.
        max_open (int): Readers that are kept, 50 KiB each. Defaults to 512.

    Attributes:
        name (str): Name of the data set.
        modality (str): 'CT', 'MR', 'XR' or 'other'.
        units (str): 'HU' or 'arbitrary'.
        classes (tuple[str]): Class names, the background first.
        palette (list[list[int]]): RGB per class.
        channels (tuple[str]): Name per channel; of a single one, the
            modality.

    Raises:
        UserError: When the folder is no (finished) store.
    """

    kind = SLICES

    def __init__(self, root: str | Path, max_open: int = 512):
        self.root = Path(root)
        content = load_header(self.root, SLICES)
        self.name: str = content['name']
        self.modality: str = content['modality']
        self.units: str = content['units']
        self.classes: tuple[str, ...] = tuple(content['classes'])
        self.palette: list[list[int]] = content['palette']
        self.channels: tuple[str, ...] = tuple(
            content.get('channels', (self.modality,))
        )
        self.import_options: dict = content.get('import_options', {})
        self._readers: Recent[ChunkReader] = Recent(max_open)
        self._infos: Recent[CaseInfo] = Recent(MAX_INFOS)
        self._case_ids: tuple[str, ...] | None = None

    def __getstate__(self) -> dict:
        return dict(self.__dict__, _case_ids=None)

    def __repr__(self) -> str:
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

    def infos(self) -> Iterator[CaseInfo]:
        """Describe every case."""
        return map(self.case, self.case_ids)

    def case(self, case_id: str) -> CaseInfo:
        """Describe a case.

        Raises:
            UserError: When the store has no such case.
        """
        return self._infos.get(case_id, lambda: self._read_case(case_id))

    def _read_case(self, case_id: str) -> CaseInfo:
        path = self.root / 'cases' / case_id / CASE_FILE
        if not path.is_file():
            shown = ', '.join(self.case_ids[:3])
            raise UserError(
                f'data set {self.root} has no case {case_id!r}; it has '
                f'{len(self.case_ids)} cases: {shown}, ...'
            )
        return load_as(path, CaseInfo.from_dict)

    def _reader(self, case_id: str, kind: str) -> ChunkReader:
        return self._readers.get((case_id, kind), lambda: self._open(case_id, kind))

    def _open(self, case_id: str, kind: str) -> ChunkReader:
        path = self.root / 'cases' / case_id / f'{kind}.b2nd'
        if not path.is_file():
            info = self._read_case(case_id)  # explains an unknown case
            if kind == 'label' and not info.labelled:
                raise UserError(
                    f'case {case_id!r} of {self.root} has no label; use '
                    'only labelled cases here'
                )
        return ChunkReader(path)

    def read_slice(self, case_id: str, index: int) -> np.ndarray:
        """Read one slice, ``(H, W)`` or ``(C, H, W)``; touches one chunk."""
        return self._reader(case_id, 'image').read(index)

    def read_channel(self, case_id: str, index: int, channel: int = 0) -> np.ndarray:
        """Read one channel of a slice, ``(H, W)``, e.g. to show it."""
        image = self.read_slice(case_id, index)
        return image if image.ndim == 2 else image[channel]

    def read_label_slice(
        self, case_id: str, index: int, label_map: Mapping[int, int] | None = None
    ) -> np.ndarray:
        """Read one label slice, ``(H, W)`` uint8; touches one chunk.

        Args:
            case_id: The case.
            index: The slice.
            label_map: Stored label to the one that takes its place, see
                :meth:`label_map`; labels that it does not name stay.
        """
        label = self._reader(case_id, 'label').read(index)
        if not label_map:
            return label
        table = np.arange(256, dtype=np.uint8)
        for old, new in label_map.items():
            table[int(old)] = int(new)
        return table[label]

    def label_map(self, classes: Sequence[str]) -> dict[int, int] | None:
        """Map the stored labels to a selection of the classes, by name.

        Args:
            classes: Names, the background first.

        Returns:
            dict[int, int] | None: Stored label to class, 0 for those not
            selected; None when all are, in this order.

        Raises:
            UserError: When a name is no class of the store.
        """
        names = list(classes)
        if names == list(self.classes):
            return None
        if names[:1] != list(self.classes[:1]) or not set(names) <= set(self.classes):
            raise UserError(
                f'classes must start with {self.classes[0]!r} and be classes of '
                f'{self.root}: {list(self.classes)}; got {names}'
            )
        return {
            label: names.index(name) if name in names else 0
            for label, name in enumerate(self.classes)
        }

    def read_volume(self, case_id: str) -> np.ndarray:
        """Read the image, ``(Z, H, W)`` or ``(Z, C, H, W)``."""
        return self._reader(case_id, 'image').read_all()

    def read_label_volume(self, case_id: str) -> np.ndarray:
        """Read the label, ``(Z, H, W)`` uint8."""
        return self._reader(case_id, 'label').read_all()

    def patient_of(self, case_id: str) -> str:
        """Tell the patient of a case."""
        return self.case(case_id).patient_id

    def fingerprint_of(self, case_id: str) -> str:
        """Digest of image and label of a case."""
        return self.case(case_id).fingerprint


def slice_name(root: str | Path, case_id: str, index: int) -> str:
    """Name a slice in messages: file and place in it."""
    return f'{root}/cases/{case_id}/image.b2nd#{index}'


def to_source_grid(volume_zyx: np.ndarray, case: CaseInfo) -> np.ndarray:
    """Put a canonical ``(Z, H, W)`` volume back on the case's source grid.

    Without geometry (PNG, HDF5) the volume is returned as it is.
    """
    if tuple(volume_zyx.shape) != case.shape:
        raise ValueError(
            f'case {case.case_id!r} has shape {case.shape} (Z, H, W), got a '
            f'volume of {tuple(volume_zyx.shape)}'
        )
    if case.source_affine is None:
        return volume_zyx
    return to_source_axes(volume_zyx, case.source_affine)
