"""What CIFAR-10 and CIFAR-100 share: archives of pictures of 32 x 32 pixels."""

from __future__ import annotations

import functools
import hashlib
import http.client
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.importers.base import Discovery, LoadedImage, SourceCase
from medssl_mm.importers.images import ImageDiscovery
from medssl_mm.importers.options import option
from medssl_mm.importers.pictures import Picture
from medssl_mm.importers.sets.image_folder import ImageFolderImporter
from medssl_mm.store import ImageInfo, Split
from medssl_mm.unpickle import load_arrays

SIDE = 32
PIXELS = 3 * SIDE * SIDE


@dataclass(frozen=True)
class Archive:
    """One of the published forms of a set.

    Args:
        folder (str): That the archive unpacks to.
        train (tuple[str]): Files of training images, in order.
        test (tuple[str]): Files of test images.
        labels (str): Key of the labels, in pickles. Defaults to '': binary.
        record (int): Bytes of labels before each image, in binary files; the
            last is the class. Defaults to 0: pickles.
    """

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: str = ''
    record: int = 0


@dataclass(frozen=True)
class CIFARImporter(ImageFolderImporter):
    """Base class: the archive's files, or one folder per class.

    Attributes:
        archives (tuple[Archive]): Known forms of the set.
        torchvision_name (str): What torchvision calls it.
    """

    download: bool | None = option(
        'fetch the archive into --src first (by torchvision, which verifies it)',
        action='store_true',
    )

    archives: ClassVar[tuple[Archive, ...]] = ()
    torchvision_name: ClassVar[str] = ''
    channels = 3
    default_size = SIDE
    no_patients = ''
    without = ('colours', 'fit', 'window', 'patient_pattern', 'patients')
    guesses_patients = False
    # Some pictures are in the archives twice.
    conflicts_allowed = True

    @property
    def source_needed(self) -> bool:  # type: ignore[override]
        """A download needs no folder yet."""
        return not self.download

    @property
    def protocol(self) -> str:
        """The published test images; validation is drawn from the others."""
        return f'{self.name}-official'

    def discover(self, src: Path) -> ImageDiscovery:
        """List the images of an archive, or of folders."""
        src = Path(src)
        if self.download:
            fetch(self.torchvision_name, src)
        for archive in self.archives:
            for folder in (src / archive.folder, src):
                files = [folder / name for name in (*archive.train, *archive.test)]
                there = [path for path in files if path.is_file()]
                if there:
                    return self._discover_archive(archive, folder, files)
        return super().discover(src)

    def _discover_archive(
        self, archive: Archive, folder: Path, files: Sequence[Path]
    ) -> ImageDiscovery:
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise UserError(
                f'{folder}: {", ".join(missing)} is missing; unpack the archive again, '
                'or fetch it by --download'
            )
        pictures: list[Picture] = []
        first: dict[bytes, str] = {}
        # Later subsets first: the test image is the patient of its copies.
        for subset, names in (('test', archive.test), ('train', archive.train)):
            number = 0
            for name in names:
                path = folder / name
                pixels, labels = read_batch(
                    str(path), archive.labels, archive.record, len(self.classes)
                )
                for index, label in enumerate(labels.tolist()):
                    image_id = f'{subset}-{number:05d}'
                    digest = hashlib.blake2b(pixels[index].tobytes()).digest()
                    pictures.append(
                        Picture(
                            image_id,
                            path,
                            label,
                            subset,
                            first.setdefault(digest, image_id),
                            extra=dict(archive=archive, index=index),
                        )
                    )
                    number += 1
        return self.describe(pictures, [])

    def drawn_splits(
        self, found: Discovery, cases: Sequence[ImageInfo], notes: list[str]
    ) -> list[Split]:
        """None where the published test images are known."""
        return [] if found.lists else super().drawn_splits(found, cases, notes)

    def load(self, case: SourceCase) -> LoadedImage:
        """Take one image out of its batch, or read its file."""
        archive = case.extra.get('archive')
        if archive is None:
            return super().load(case)
        pixels, _ = read_batch(
            case.image, archive.labels, archive.record, len(self.classes)
        )
        image = np.ascontiguousarray(pixels[case.extra['index']])
        return self.form(
            case.image, image, case.extra['channels'], case.extra['side'], self.pad
        )

    def class_names(self, found: Sequence[str]) -> tuple[str, ...]:
        """The published classes.

        Raises:
            UserError: A folder is none of them.
        """
        unknown = sorted(set(found) - set(self.classes))
        if unknown:
            raise UserError(
                f'the folder(s) {", ".join(unknown[:5])} are no class of {self.name}: '
                f'{", ".join(self.classes[:10])}, ...; image-folder takes any classes'
            )
        return self.classes


def read_batch(
    path: str, labels: str, record: int, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read and check one file of an archive; the last one read is kept.

    Args:
        path (str): The file.
        labels (str): Key of the labels, in a pickle.
        record (int): Bytes of labels before each image, in a binary file.
        classes (int): Number of classes.

    Returns:
        tuple: images ``(N, 32, 32, 3)`` uint8, RGB; class indices ``(N, )``.

    Raises:
        UserError: Damaged, of another form, or a pickle of more than arrays.
    """
    return _read_batch(path, labels, record, classes, os.stat(path).st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read_batch(
    path: str, labels: str, record: int, classes: int, time: int
) -> tuple[np.ndarray, np.ndarray]:
    data, found = _read_binary(path, record) if record else _read_pickle(path, labels)
    if len(found) and (found.min() < 0 or found.max() >= classes):
        raise UserError(
            f'{path}: labels from {found.min()} to {found.max()}; expected 0 to '
            f'{classes - 1}. Is it the file of another set?'
        )
    pixels = data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return pixels, found


def _read_binary(path: str, record: int) -> tuple[np.ndarray, np.ndarray]:
    raw = np.fromfile(path, np.uint8)
    width = record + PIXELS
    if not len(raw) or len(raw) % width:
        raise UserError(
            f'{path}: {len(raw)} bytes; expected a multiple of {width} ({record} of '
            f'labels, {PIXELS} of pixels). The file is cut short or of another set: '
            'unpack the archive again.'
        )
    rows = raw.reshape(-1, width)
    return rows[:, record:], rows[:, record - 1].astype(np.int64)


def _read_pickle(path: str, labels: str) -> tuple[np.ndarray, np.ndarray]:
    content = load_arrays(path)
    if isinstance(content, dict):
        data, found = content.get('data'), content.get(labels)
        if (
            isinstance(data, np.ndarray)
            and data.dtype == np.uint8
            and data.ndim == 2
            and data.shape[1] == PIXELS
            and isinstance(found, list)
            and len(found) == len(data)
            and all(isinstance(label, int) for label in found)
        ):
            return data, np.array(found, np.int64)
    raise UserError(
        f"{path}: expected a dictionary with 'data', uint8 (N, {PIXELS}), and "
        f'{labels!r}, a list of N whole numbers; unpack the archive again, or take '
        'that of the right set.'
    )


def fetch(name: str, src: Path) -> None:
    """Fetch an archive by torchvision, which verifies its checksum.

    Args:
        name (str): What torchvision calls the set.
        src (Path): Folder, made if missing.

    Raises:
        UserError: No network, or a damaged file; says what to do by hand.
    """
    from torchvision import datasets  # only for a download

    kind = getattr(datasets, name)
    try:
        kind(str(src), download=True)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise UserError(
            f'{kind.filename} cannot be fetched ({error}). Without a network, fetch '
            f'{kind.url} (MD5 {kind.tgz_md5}) elsewhere, unpack it in {src} by '
            f'tar -xzf {kind.filename}, and leave --download out.'
        ) from None
