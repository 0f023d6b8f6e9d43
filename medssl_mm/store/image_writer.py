"""Writes an image set, atomically."""

from __future__ import annotations

import json
import threading
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.store.case_info import content_digest
from medssl_mm.store.chunks import ChunkReader, compress_image, write_chunks
from medssl_mm.store.header import (
    DATASET_FILE,
    FORMAT_VERSION,
    GENERATION,
    IMAGES,
    UNCERTAIN_VERSION,
    load_json,
)
from medssl_mm.store.images import (
    IMAGE_FILE,
    MULTI_LABEL,
    SINGLE_LABEL,
    TABLE_FILE,
    UNCERTAIN,
    UNKNOWN,
    ImageInfo,
    ImageStore,
    Label,
    read_table,
    table_digest,
    write_table,
)
from medssl_mm.store.recent import Recent
from medssl_mm.store.staging import StagedWriter


class _Part:
    """Images of one process: compressed pixels, and one line of JSON each."""

    def __init__(self, folder: Path):
        stem = folder / uuid.uuid4().hex
        self._lock = threading.Lock()
        self._pixels = open(stem.with_suffix('.bin'), 'ab')
        self._lines = open(stem.with_suffix('.jsonl'), 'a', encoding='utf-8')

    def append(self, info: ImageInfo, chunk: bytes | None, fill: int | None) -> None:
        with self._lock:
            place = None
            if chunk is not None:
                place = (self._pixels.tell(), len(chunk), zlib.crc32(chunk))
                self._pixels.write(chunk)
                self._pixels.flush()
            # The line comes last: without it the image counts as not done.
            self._write(dict(info=asdict(info), place=place, fill=fill))

    def drop(self, image_id: str) -> None:
        with self._lock:
            self._write(dict(dropped=image_id))

    def _write(self, record: dict) -> None:
        self._lines.write(json.dumps(record) + '\n')
        self._lines.flush()

    def close(self) -> None:
        with self._lock:
            self._pixels.close()
            self._lines.close()


class _Session:
    """What one process of an import keeps: its part file, and what was known.

    Args:
        writer (ImageStoreWriter): Any copy of the writer.
    """

    def __init__(self, writer: ImageStoreWriter):
        self._writer = writer
        self._part: _Part | None = None
        self._known: dict[str, ImageInfo] | None = None
        self._lock = threading.Lock()

    @property
    def part(self) -> _Part:
        with self._lock:
            if self._part is None:
                self._part = _Part(self._writer.staging / self._writer.folder)
            return self._part

    @property
    def known(self) -> dict[str, ImageInfo]:
        with self._lock:
            if self._known is None:
                self._known = self._writer.describe_all()
            return self._known

    def close(self) -> None:
        if self._part is not None:
            self._part.close()


# A worker gets a new copy of the writer with every image; they find what they
# share by the writer's token. The files of two imports are open at most.
_SESSIONS: Recent[_Session] = Recent(limit=2, close=_Session.close)


class ImageStoreWriter(StagedWriter):
    """Writes an image set; see :class:`~.staging.StagedWriter`.

    An image is a case. Processes append images to part files of their own;
    :meth:`finish` puts them in order into one file.

    Use :meth:`create` to start.
    """

    folder = 'images'

    def __init__(self, root: Path, header: dict, overwrite: bool = False):
        super().__init__(root, header, overwrite)
        self.token = uuid.uuid4().hex

    @classmethod
    def create(
        cls,
        root: str | Path,
        name: str,
        task: str,
        classes: Sequence[str],
        channels: int,
        size: tuple[int, int],
        import_options: dict | None = None,
        overwrite: bool = False,
        uncertain: bool = False,
    ) -> ImageStoreWriter:
        """Start or continue writing an image set.

        Args:
            root: Folder, made if missing.
            name: Name of the data set.
            task: 'multi-label' or 'single-label'.
            classes: Names of the classes.
            channels: 1 (grey) or 3 (RGB).
            size: Height and width, pixels.
            import_options: Options of the import, kept for later runs.
            overwrite: Start anew whatever the folder's set was made with;
                :meth:`finish` drops its images.
            uncertain: Whether several labels may be 2 besides 0 and 1.

        Raises:
            ValueError: Unknown task or number of channels.
            UserError: The folder holds another data set or cannot be made.
        """
        if task not in (MULTI_LABEL, SINGLE_LABEL):
            raise ValueError(
                f"task must be '{MULTI_LABEL}' or '{SINGLE_LABEL}', got {task!r}"
            )
        if channels not in (1, 3):
            raise ValueError(f'channels must be 1 or 3, got {channels!r}')
        header = dict(
            name=name,
            kind=IMAGES,
            task=task,
            classes=list(classes),
            channels=channels,
            size=list(size),
            version=UNCERTAIN_VERSION if uncertain else FORMAT_VERSION,
            import_options=import_options or {},
        )
        return cls.stage(root, header, overwrite)

    @property
    def staged(self) -> list[str]:
        """Images that wait for :meth:`finish`."""
        return sorted(self._staged_records())

    @property
    def published(self) -> list[str]:
        """Images of the finished set, if there is one."""
        return sorted(self._published_infos())

    @property
    def _image_shape(self) -> tuple[int, ...]:
        colours = (3,) if self.header['channels'] == 3 else ()
        return (*self.header['size'], *colours)

    def _published_infos(self) -> dict[str, ImageInfo]:
        path = self.root / DATASET_FILE
        if self.overwrite or not path.is_file():
            return {}
        infos = {
            info.image_id: info
            for info in read_table(
                self.root / TABLE_FILE, self.header['classes'], self.header['task']
            )
        }
        wanted = load_json(path).get('images_digest')
        if (
            wanted != table_digest(infos.values())
            or wanted != ChunkReader(self.root / IMAGE_FILE).tag
        ):
            return {}  # stopped between two files: all is imported anew
        return infos

    def _staged_records(self) -> dict[str, dict]:
        """Complete images of the part files; the last of each wins."""
        records: dict[str, dict] = {}
        for lines in sorted(
            (self.staging / 'images').glob('*.jsonl'),
            key=lambda path: path.stat().st_mtime_ns,
        ):
            pixels = lines.with_suffix('.bin')
            size = pixels.stat().st_size if pixels.is_file() else 0
            for line in lines.read_text(encoding='utf-8').splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    continue  # the import was killed while writing it
                if 'dropped' in record:
                    records.pop(record['dropped'], None)
                    continue
                place = record['place']
                if place is not None and sum(place[:2]) > size:
                    continue
                record.update(info=ImageInfo(**record['info']), file=pixels)
                image_id = record['info'].image_id
                earlier = records.get(image_id)
                if place is None and earlier and earlier['place']:
                    # Newly described: the pixels staged before stay.
                    record.update(
                        place=earlier['place'],
                        fill=earlier['fill'],
                        file=earlier['file'],
                    )
                records[image_id] = record
        return records

    @property
    def _session(self) -> _Session:
        return _SESSIONS.get(self.token, lambda: _Session(self))

    def describe_all(self) -> dict[str, ImageInfo]:
        """Describe the images that were there before, by id."""
        known = self._published_infos()
        known.update(
            (name, record['info']) for name, record in self._staged_records().items()
        )
        return known

    def read_case(self, case_id: str) -> ImageInfo | None:
        """Describe an image that was there before; None when it was not."""
        return self._session.known.get(case_id)

    def refresh_case(self, info: ImageInfo) -> None:
        """Rewrite the description of an image whose pixels stay."""
        self._append(info, None, None)

    def _append(self, info: ImageInfo, chunk: bytes | None, fill: int | None) -> None:
        try:
            self._session.part.append(info, chunk, fill)
        except OSError as error:
            raise UserError(
                f'cannot write image {info.image_id!r} under {self.staging}: '
                f'{error}. Is the disk full?'
            ) from None

    def drop_staged(self, case_id: str) -> None:
        """Drop an image that waits for :meth:`finish`."""
        self._session.part.drop(case_id)

    def add_case(
        self,
        case_id: str,
        image: np.ndarray,
        label: int | Iterable[int],
        patient_id: str | None = None,
        **about: Any,
    ) -> ImageInfo:
        """Stage one image.

        Args:
            case_id: Id of the image.
            image: uint8 of the set's size, ``(H, W)`` or ``(H, W, 3)``.
            label: Class index, or one 0/1 per class; -1 where it is not known.
            patient_id: Defaults to None: the image's id.
            **about: What else :class:`~.images.ImageInfo` may tell: what is
                known of the source, warnings.

        Returns:
            ImageInfo: What the table will say.

        Raises:
            ValueError: Wrong shape, type or label.
            UserError: The image cannot be written (e.g. disk full).
        """
        image = np.asarray(image)
        if image.shape != self._image_shape or image.dtype != np.uint8:
            raise ValueError(
                f'image {case_id!r}: expected uint8 of shape '
                f'{self._image_shape}, got {image.dtype} of {image.shape}'
            )
        constant = (image == image.flat[0]).all()
        empty = (image == image.reshape(-1, *image.shape[2:])[0]).all()
        info = ImageInfo(
            case_id,
            patient_id or case_id,
            self._check_label(case_id, label),
            # Empty images are all alike: no sign of a copy.
            content_sha256='' if empty else content_digest(image),
            **about,
        )
        self._append(
            info, compress_image(image), int(image.flat[0]) if constant else None
        )
        return info

    def _check_label(self, case_id: str, label: Any) -> Label:
        number = len(self.header['classes'])
        if self.header['task'] == MULTI_LABEL:
            values = tuple(map(int, label))
            allowed = {0, 1}
            if self.header['version'] == UNCERTAIN_VERSION:
                allowed.add(UNCERTAIN)
            if len(values) != number or not (
                set(values) <= allowed or set(values) == {UNKNOWN}
            ):
                raise ValueError(
                    f'image {case_id!r}: label must be {number} values of '
                    f'{" or ".join(map(str, sorted(allowed)))} (or all -1), got '
                    f'{values}'
                )
            return values
        value = int(label)
        if not UNKNOWN <= value < number:
            raise ValueError(
                f'image {case_id!r}: label must lie between 0 and '
                f'{number - 1} (or be -1), got {value}'
            )
        return value

    def _prepare(self, remove: set[str]) -> tuple[list[str], list[str], dict]:
        published, staged = self._published_infos(), self._staged_records()
        infos = {name: info for name, info in published.items() if name not in remove}
        infos.update((image_id, record['info']) for image_id, record in staged.items())
        order = sorted(infos)
        digest = table_digest(infos[name] for name in order)
        places = {name: n for n, name in enumerate(sorted(published))}
        write_chunks(
            self.staging / IMAGE_FILE,
            (len(order), *self._image_shape),
            self._chunks(order, staged, places),
            digest,
        )
        write_table(
            self.staging / TABLE_FILE,
            [infos[name] for name in order],
            self.header['classes'],
            self.header['task'],
        )
        extra = {'images': len(order), 'images_digest': digest, GENERATION: digest}
        return [IMAGE_FILE, TABLE_FILE], [], extra

    def _chunks(
        self, order: list[str], staged: Mapping[str, dict], places: Mapping[str, int]
    ) -> Iterator[tuple[bytes, int | None]]:
        """Compressed pixels of every image, in order."""
        old = None
        files: dict[Path, BinaryIO] = {}
        try:
            for image_id in order:
                record = staged.get(image_id)
                if record is None or record['place'] is None:
                    old = old or ChunkReader(self.root / IMAGE_FILE)
                    yield old.read_chunk(places[image_id])
                    continue
                path = record['file']
                if path not in files:
                    files[path] = open(path, 'rb')
                offset, size, checksum = record['place']
                files[path].seek(offset)
                chunk = files[path].read(size)
                if zlib.crc32(chunk) != checksum:
                    raise UserError(
                        f'{path} is damaged (image {image_id!r}); delete '
                        f'{self.staging} and run the import again'
                    )
                yield chunk, record['fill']
        finally:
            for file in files.values():
                file.close()

    def open(self) -> ImageStore:
        """Open the finished set."""
        return ImageStore(self.root)

    def _close(self) -> None:
        _SESSIONS.drop(self.token)
