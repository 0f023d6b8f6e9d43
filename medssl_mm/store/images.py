"""Image set: every image of a classification data set, one chunk each.

A set is a folder with ``dataset.json``, ``images.b2nd`` ``(N, H, W)`` or
``(N, H, W, 3)`` uint8, ``images.csv`` (one row an image, in the order of the
chunks) and ``splits/``. One blosc2 chunk holds one image, so an image is read
without touching the others.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.store.case_info import fingerprint_of
from medssl_mm.store.chunks import ChunkReader
from medssl_mm.store.header import IMAGES, UNCERTAIN_VERSION, load_header

IMAGE_FILE = 'images.b2nd'
TABLE_FILE = 'images.csv'
AS_BYTES = 'surrogateescape'  # names of files that are no text
MULTI_LABEL, SINGLE_LABEL = 'multi-label', 'single-label'
UNKNOWN = -1  # label of an image that nobody labelled
UNCERTAIN = 2  # of several labels one that the source itself calls uncertain
COLUMNS = (
    'image_id',
    'patient_id',
    'source_file',
    'source_sha256',
    'source_bytes',
    'source_mtime_ns',
    'content_sha256',
    'warnings',
)


# A class index, or one 0/1 (2: uncertain) per class.
Label = int | tuple[int, ...]


@dataclass(frozen=True)
class ImageInfo:
    """What a set knows of one image without reading its pixels.

    Args:
        image_id (str): Unique name.
        patient_id (str): Patient, the unit of every split.
        label (int | tuple[int]): Class index, or one 0/1 per class; -1
            where it is not known, 2 where a class is uncertain.
        source_file (str): File the image was made from.
        source_sha256 (str): Digest of that file.
        source_stat (tuple): (path, bytes, mtime in ns) of that file, as a
            tuple of one.
        content_sha256 (str): Digest of the stored pixels.
        warnings (tuple): (code, message) of the import's warnings.
    """

    image_id: str
    patient_id: str
    label: Label
    source_file: str = ''
    source_sha256: str = ''
    source_stat: tuple = ()
    content_sha256: str = ''
    warnings: tuple = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, 'source_file', str(self.source_file))
        # Lists where they come from JSON.
        if isinstance(self.label, list):
            object.__setattr__(self, 'label', tuple(self.label))
        for name in ('source_stat', 'warnings'):
            object.__setattr__(self, name, tuple(map(tuple, getattr(self, name))))

    @property
    def case_id(self) -> str:
        """The image is the case of the import."""
        return self.image_id

    @property
    def labelled(self) -> bool:
        """Whether the label is known."""
        return is_known(self.label)

    # The label comes from a list and is compared itself, not by a digest.
    label_sha256 = None

    @property
    def fingerprint(self) -> str:
        """Digest of image and label, for the hash of a split."""
        # Images of one colour have no digest of their own.
        return fingerprint_of(self.content_sha256 or self.source_sha256, self.label)

    def moved(
        self, source_file: str, label_source_file: str | None, source_stat: tuple
    ) -> ImageInfo:
        """Describe the same content in a file of another place or time."""
        return replace(self, source_file=source_file, source_stat=source_stat)


def is_known(label: Label) -> bool:
    """Tell whether a label (index or 0/1 tuple) is known."""
    if isinstance(label, tuple):
        return UNKNOWN not in label
    return label != UNKNOWN


def classes_of_label(label: Label) -> tuple[int, ...]:
    """Indices of the classes that a label names for certain; none for unknown."""
    if not is_known(label):
        return ()
    if isinstance(label, tuple):
        return tuple(i for i, value in enumerate(label) if value == 1)
    return (label,)


def write_table(
    path: Path, infos: Iterable[ImageInfo], classes: Sequence[str], task: str
) -> None:
    """Write ``images.csv``."""
    names = list(classes) if task == MULTI_LABEL else ['label']
    with open(path, 'w', newline='', encoding='utf-8', errors=AS_BYTES) as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *names])
        for info in infos:
            _, size, time = info.source_stat[0] if info.source_stat else ('', 0, 0)
            label = info.label if isinstance(info.label, tuple) else (info.label,)
            warnings = json.dumps(info.warnings) if info.warnings else ''
            named = info.image_id, info.patient_id, info.source_file, info.source_sha256
            writer.writerow([*named, size, time, info.content_sha256, warnings, *label])


def read_table(path: Path, classes: Sequence[str], task: str) -> Iterator[ImageInfo]:
    """Read ``images.csv``; yields an :class:`ImageInfo` a row.

    Raises:
        UserError: When the file is missing or has other columns.
    """
    remedy = f'delete the folder {path.parent} and run tools/prepare_data.py again'
    names = list(classes) if task == MULTI_LABEL else ['label']
    try:
        file = open(path, newline='', encoding='utf-8', errors=AS_BYTES)
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}; {remedy}') from None
    with file:
        rows = csv.reader(file)
        header = next(rows, [])
        if header != [*COLUMNS, *names]:
            raise UserError(
                f'{path} has the columns {header[:12]}, expected '
                f'{[*COLUMNS, *names][:12]}; {remedy}'
            )
        for number, row in enumerate(rows, 2):
            try:
                if len(row) != len(header):
                    raise ValueError(f'{len(row)} columns')
                image_id, patient, source, digest, *stat, content, warnings = row[:8]
                label = tuple(map(int, row[8:]))
                yield ImageInfo(
                    image_id,
                    patient,
                    label if task == MULTI_LABEL else label[0],
                    source,
                    digest,
                    ((source, *map(int, stat)),),
                    content,
                    json.loads(warnings) if warnings else (),
                )
            except ValueError as error:
                raise UserError(
                    f'{path}, line {number} is damaged ({error}); {remedy}'
                ) from None


def table_digest(infos: Iterable[ImageInfo]) -> str:
    """Digest of the rows of a table: ties it, the pixels and the header together."""
    digest = hashlib.sha256()
    for info in infos:
        digest.update(
            f'{info.image_id}\t{info.patient_id}\t{info.label}\t'
            f'{info.content_sha256}\n'.encode(errors=AS_BYTES)
        )
    return digest.hexdigest()[:16]


class ImageStore:
    """Reads an image set. Picklable, safe to use after a fork.

    The table is read once, into arrays that worker processes share.

    Args:
        root (str | Path): Folder of the set.

    Attributes:
        name (str): Name of the data set.
        task (str): 'multi-label' or 'single-label'.
        classes (tuple[str]): Class names.
        channels (int): 1 (grey) or 3 (RGB).
        size (tuple[int, int]): Height and width, pixels.
        uncertain (bool): Whether labels may be uncertain.

    Raises:
        UserError: When the folder is no (finished) image set.
    """

    kind = IMAGES

    def __init__(self, root: str | Path):
        self.root = Path(root)
        header = load_header(self.root, IMAGES)
        self.name: str = header['name']
        self.task: str = header['task']
        self.classes: tuple[str, ...] = tuple(header['classes'])
        self.channels: int = header['channels']
        self.size: tuple[int, int] = (header['size'][0], header['size'][1])
        self.import_options: dict = header.get('import_options', {})
        self.uncertain: bool = header['version'] == UNCERTAIN_VERSION
        self._number: int = header['images']
        self._digest: str = header['images_digest']
        self._table: dict[str, np.ndarray] | None = None
        self._reader: ChunkReader | None = None
        self._index: dict[str, int] | None = None

    def __getstate__(self) -> dict:
        return dict(self.__dict__, _table=None, _reader=None, _index=None)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}('{self.root}', name={self.name!r}, "
            f'images={len(self)})'
        )

    def infos(self) -> Iterator[ImageInfo]:
        """Describe every image; reads the table anew."""
        return read_table(self.root / TABLE_FILE, self.classes, self.task)

    def _read_table(self) -> dict[str, np.ndarray]:
        if self._table is None:
            ids, patients, labels, prints, contents = [], [], [], [], []

            def rows() -> Iterator[ImageInfo]:  # which are not kept
                for info in self.infos():
                    ids.append(info.image_id)
                    patients.append(info.patient_id)
                    labels.append(info.label)
                    prints.append(info.fingerprint)
                    contents.append(info.content_sha256)
                    yield info

            if table_digest(rows()) != self._digest:
                raise self._interrupted(TABLE_FILE)
            width = (len(self.classes),) * (self.task == MULTI_LABEL)
            self._table = dict(
                ids=np.array(ids, str),
                patients=np.array(patients, str),
                labels=np.array(labels, np.int16).reshape(-1, *width),
                fingerprints=np.array(prints, 'S16'),
                contents=np.array(contents, 'S16'),
            )
        return self._table

    def __len__(self) -> int:
        return self._number

    @property
    def image_ids(self) -> np.ndarray:
        """Ids of the images, sorted ``(N, )``."""
        return self._read_table()['ids']

    @property
    def patient_ids(self) -> np.ndarray:
        """Patient of every image ``(N, )``."""
        return self._read_table()['patients']

    @property
    def contents(self) -> np.ndarray:
        """First 16 hex digits of the digest of every image ``(N, )``; '': constant."""
        return self._read_table()['contents'].astype(str)

    @property
    def labels(self) -> np.ndarray:
        """Labels: class indices ``(N, )`` or 0/1 ``(N, C)``; -1 unknown.

        2 among the latter: uncertain, where :attr:`uncertain` says so.
        """
        return self._read_table()['labels']

    @property
    def labelled(self) -> np.ndarray:
        """Whether the label is known, of every image ``(N, )``."""
        labels = self.labels
        return (labels != UNKNOWN).reshape(len(labels), -1).all(1)

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Ids of the images, as splits name them."""
        return tuple(self.image_ids.tolist())

    def index_of(self, image_id: str) -> int:
        """Place of an image in the set.

        Raises:
            UserError: When the set has no such image.
        """
        if self._index is None:
            self._index = {name: n for n, name in enumerate(self.image_ids.tolist())}
        if image_id not in self._index:
            raise UserError(
                f'image set {self.root} has no image {image_id!r}; it has '
                f'{len(self)}: {", ".join(self.image_ids[:3])}, ...'
            )
        return self._index[image_id]

    def patient_of(self, image_id: str) -> str:
        """Tell the patient of an image."""
        return str(self.patient_ids[self.index_of(image_id)])

    def fingerprint_of(self, image_id: str) -> str:
        """Digest of image and label."""
        return self._read_table()['fingerprints'][self.index_of(image_id)].decode()

    def classes_of(self, image_id: str) -> tuple[int, ...]:
        """Indices of the classes of an image; none when it is unlabelled."""
        label = self.labels[self.index_of(image_id)].tolist()
        return classes_of_label(tuple(label) if isinstance(label, list) else label)

    def read(self, index: int) -> np.ndarray:
        """Read image ``index``, ``(H, W)`` or ``(H, W, 3)`` uint8."""
        if self._reader is None:
            self._reader = self._open()
        return self._reader.read(index)

    def _open(self) -> ChunkReader:
        path = self.root / IMAGE_FILE
        reader = ChunkReader(path)
        if reader.tag != self._digest:
            raise self._interrupted(IMAGE_FILE)
        return reader

    def _interrupted(self, name: str) -> UserError:
        return UserError(
            f'{self.root / name} does not belong to the dataset.json beside '
            'it: an import was interrupted, or a file was changed by hand. '
            'Run the same tools/prepare_data.py command again.'
        )
