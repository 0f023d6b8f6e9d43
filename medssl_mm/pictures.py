"""Pictures as they are, before any preprocessing, from wherever they lie.

Analyses that compare encoders give each its own preprocessing, so they need
the pictures themselves.
"""

from __future__ import annotations

import hashlib
import json
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.files import data_config

if TYPE_CHECKING:
    from medssl_mm.checkpoint_features import ImageSubsets
    from medssl_mm.encoders import Preprocessing

HEADER = 'dataset.json'


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures with what is known of them.

    Args:
        name (str): Of the set.
        image_ids (tuple[str]): Unique names.
        patients (tuple[str]): Patient of each; the image where none is known.
        has_patients (bool): Whether they are known.
        classes (tuple[str]): Names; may be empty.
        targets (np.ndarray): Whether a picture has a class.
        known (np.ndarray): Whether its classes are known.
        reader (Callable): From a row to the picture, uint8 ``(H, W)`` or
            ``(H, W, 3)`` RGB.
        content (str): Digest of what the pictures are.

    Shape: targets ``(N, C)``, known ``(N,)``, bool.
    """

    name: str
    image_ids: tuple[str, ...]
    patients: tuple[str, ...]
    has_patients: bool
    classes: tuple[str, ...]
    targets: np.ndarray
    known: np.ndarray
    reader: Callable[[int], np.ndarray]
    content: str = ''

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.image_ids)

    def read(self, row: int) -> np.ndarray:
        """Read one picture.

        Shape: uint8 ``(H, W)`` or ``(H, W, 3)``.

        Raises:
            UserError: It cannot be read, or is not of 8 bit.
        """
        image = np.asarray(self.reader(row))
        if image.dtype != np.uint8:
            raise UserError(
                f'{self.image_ids[row]} has values of type {image.dtype}, 8 bit '
                'were expected; import the set by tools/prepare_data.py image-folder'
            )
        return image

    def resized(self, row: int, preprocessing: Preprocessing) -> np.ndarray:
        """Read one picture and bring it to the form that an encoder takes.

        Shape: ``(h, w, C)``, uint8.

        Raises:
            UserError: It cannot be read, or has colours and the encoder takes
                none; names the picture.
        """
        image = self.read(row)
        try:
            return preprocessing.resize(image)
        except UserError as error:
            raise UserError(f'{self.image_ids[row]}: {error}') from error

    def label(self, row: int) -> str:
        """Names of the classes of a picture, '' where they are not known."""
        if not self.known[row] or not self.classes:
            return ''
        names = [c for c, has in zip(self.classes, self.targets[row]) if has]
        return ', '.join(names) or 'none'

    def take(self, rows: Sequence[int]) -> Pictures:
        """Some of the pictures, in the order of the rows."""
        rows = [int(row) for row in rows]
        return replace(
            self,
            image_ids=tuple(self.image_ids[row] for row in rows),
            patients=tuple(self.patients[row] for row in rows),
            targets=self.targets[rows],
            known=self.known[rows],
            reader=lambda row: self.reader(rows[row]),
            content=_digest([self.content, *map(str, rows)]),
        )

    def rows_of(self, names: Sequence[str]) -> list[int]:
        """Rows of pictures by their names, or by the last part of these.

        Raises:
            UserError: No picture, or several, are called so.
        """
        found = []
        for name in names:
            rows = [r for r, own in enumerate(self.image_ids) if own == name] or [
                r for r, own in enumerate(self.image_ids) if Path(own).stem == name
            ]
            if len(rows) != 1:
                raise UserError(
                    f'{len(rows) or "no"} pictures of {self.name} are called {name!r}; '
                    f'names are such as {", ".join(self.image_ids[:3])}'
                )
            found += rows
        return found

    def spread(self, count: int, seed: int = 0) -> list[int]:
        """Rows of some pictures: of the classes in turn, of different patients."""
        turns: Counter[tuple] = Counter()
        order, seen = [], set()
        for row in np.random.default_rng(seed).permutation(len(self)):
            kind = tuple(self.targets[row])
            if self.patients[row] not in seen:
                seen.add(self.patients[row])
                order.append((turns[kind], int(row)))
                turns[kind] += 1
        chosen = [row for _, row in sorted(order)[:count]]
        return sorted(chosen, key=lambda row: self.label(row))


def pictures_of(name: str, images: Mapping[str, np.ndarray]) -> Pictures:
    """Pictures that have been read, of which nothing else is known.

    Args:
        name (str): Of the set.
        images (Mapping[str, np.ndarray]): By their names.

    Shape: uint8 ``(H, W)`` or ``(H, W, 3)`` each.
    """
    names, arrays = tuple(images), list(images.values())
    return Pictures(
        name=name,
        image_ids=names,
        patients=names,
        has_patients=False,
        classes=(),
        targets=np.zeros((len(names), 0), bool),
        known=np.zeros(len(names), bool),
        reader=lambda row: arrays[row],
    )


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256('\n'.join(texts).encode()).hexdigest()[:16]


def add_picture_arguments(parser: ArgumentParser) -> None:
    """Add the options that say which pictures a tool takes."""
    parser.add_argument(
        'pictures',
        nargs='+',
        help='classification config; name of a data set of configs/data; folder of an '
        'image set; or picture files and folders of such, whose folders are classes',
    )
    parser.add_argument(
        '--subsets',
        nargs='+',
        choices=('train', 'val', 'test'),
        help='default: test of a classification config, all labelled pictures of a '
        'data set, all of an image set',
    )
    parser.add_argument(
        '--split',
        help='of the folder of an image set, such as NAME-patients; a config names its '
        'own',
    )
    parser.add_argument(
        '--patient-pattern',
        metavar='REGEX',
        help='of files: the group is the patient, searched for in the path',
    )


def open_pictures(args: Namespace) -> Pictures:
    """Open what :func:`add_picture_arguments` asks for; reads no picture.

    Raises:
        UserError: There is no such file or folder, or no picture in it, or an
            option has no meaning for it.
    """
    first = args.pictures[0]
    if not Path(first).exists() and data_config(first).is_file():
        first = str(data_config(first))
    if first.partition('+')[0].endswith('.py') and len(args.pictures) == 1:
        _refuse(args, 'is a config, which names its split', 'split')
        _refuse(args, _KNOWS_PATIENTS, 'patient_pattern')
        return _of_config(first, args.subsets)
    if Path(first, HEADER).is_file() and len(args.pictures) == 1:
        _refuse(args, _KNOWS_PATIENTS, 'patient_pattern')
        return _of_image_set(Path(first), args.split, args.subsets)
    _refuse(
        args,
        f'is neither a config nor an image set ({HEADER}): it has no subsets',
        *('subsets', 'split'),
    )
    return _of_files([Path(name) for name in args.pictures], args.patient_pattern)


_KNOWS_PATIENTS = 'knows the patients of its images from their import'


def _refuse(args: Namespace, reason: str, *names: str) -> None:
    """Refuse options that these pictures would pass over."""
    given = [f'--{n.replace("_", "-")}' for n in names if getattr(args, n) is not None]
    if given:
        raise UserError(f'{args.pictures[0]} {reason}; leave {" and ".join(given)} out')


def _joined(parts: Sequence[Pictures]) -> Pictures:
    """Pictures of several subsets of one set."""
    starts = np.cumsum([0, *map(len, parts)])

    def read(row: int) -> np.ndarray:
        part = int(np.searchsorted(starts, row, side='right')) - 1
        return parts[part].reader(row - int(starts[part]))

    return replace(
        parts[0],
        image_ids=tuple(name for part in parts for name in part.image_ids),
        patients=tuple(name for part in parts for name in part.patients),
        has_patients=all(part.has_patients for part in parts),
        targets=np.concatenate([part.targets for part in parts]),
        known=np.concatenate([part.known for part in parts]),
        reader=read,
        content=_digest([part.content for part in parts]),
    )


class _AsIs:
    """The preprocessing that leaves a picture as it is."""

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Shape: ``(H, W)`` or ``(H, W, C)`` -> ``(H, W, C)``."""
        return np.array(image if image.ndim == 3 else image[..., None])


def _of_config(path: str, subsets: Sequence[str] | None) -> Pictures:
    from medssl_mm.checkpoint_features import ALL, ImageSubsets, config_of_images
    from medssl_mm.engine import launch

    config = launch.load_config(path)
    default = 'test'
    if 'images' in config and 'test_dataloader' not in config:
        # Of configs/data: an image set alone.
        config, default = config_of_images(config.images, path), ALL
    source = ImageSubsets(config)
    return _joined([_of_subset(source, path, s) for s in subsets or [default]])


def _of_subset(source: ImageSubsets, path: str, subset: str) -> Pictures:
    from medssl_mm.checkpoint_features.images import describe_pictures

    images = source.subset(subset)
    as_is: Any = _AsIs()
    samples = source.pictures(images, as_is)

    def read(row: int) -> np.ndarray:
        image = samples[row]['inputs'].permute(1, 2, 0).numpy()
        return image[..., 0] if image.shape[2] == 1 else image

    store: Any = getattr(images.dataset, 'store', None)
    known, targets = _targets(images.raw_labels, images.classes, subset)
    return Pictures(
        name=store.name if store else Path(path.partition('+')[0]).stem,
        image_ids=images.image_ids,
        patients=images.patients,
        has_patients=images.has_patients,
        classes=tuple(images.classes or ()),
        targets=targets,
        known=known,
        reader=read,
        content=_digest([path, json.dumps(describe_pictures(images), default=str)]),
    )


def _targets(
    raw_labels: Sequence[Any], classes: Sequence[str] | None, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Whether the classes of every picture are known, and which it has."""
    from medssl_mm.statistics.labels import is_known, labels_of

    known = np.array([is_known(label) for label in raw_labels])
    targets = np.zeros((len(known), len(classes or ())), bool)
    if known.any() and classes:
        targets[known] = labels_of(raw_labels, classes, name).targets
    return known, targets


def _of_image_set(
    root: Path, split: str | None, subsets: Sequence[str] | None
) -> Pictures:
    from medssl_mm.store import open_store
    from medssl_mm.store.header import IMAGES
    from medssl_mm.store.images import classes_of_label
    from medssl_mm.store.splits import load_split

    store: Any = open_store(root, IMAGES)
    infos = list(store.infos())
    rows = list(range(len(infos)))
    if subsets and not split:
        raise UserError(f'--subsets of {root} needs --split: the name of one of its')
    if split:
        parts = load_split(root, split)
        names = {name for subset in subsets or parts.subsets for name in parts[subset]}
        rows = [row for row in rows if infos[row].image_id in names]
    targets = np.zeros((len(rows), len(store.classes)), bool)
    for place, row in enumerate(rows):
        targets[place, list(classes_of_label(infos[row].label))] = True
    return Pictures(
        name=store.name,
        image_ids=tuple(infos[row].image_id for row in rows),
        patients=tuple(infos[row].patient_id for row in rows),
        has_patients=True,
        classes=tuple(store.classes),
        targets=targets,
        known=np.array([infos[row].labelled for row in rows]),
        reader=lambda row: store.read(rows[row]),
        content=_digest([infos[row].content_sha256 for row in rows]),
    )


def _of_files(paths: Sequence[Path], pattern: str | None) -> Pictures:
    from medssl_mm.importers.base import CaseError
    from medssl_mm.importers.naming import match_patient
    from medssl_mm.importers.pictures import PictureImporter
    from medssl_mm.importers.readers.picture import ALL_SUFFIXES, find_pictures

    files: list[tuple[Path, str]] = []
    for path in paths:
        if path.is_dir():
            inside = find_pictures(path, ALL_SUFFIXES)
            files += [(file, file.relative_to(path).as_posix()) for file in inside]
        elif path.is_file():
            files.append((path, path.name))
        else:
            raise UserError(f'{path} does not exist')
    if not files:
        raise UserError(
            f'{", ".join(map(str, paths))} holds no picture ({", ".join(ALL_SUFFIXES)})'
        )
    folders = [Path(name).parent.as_posix() for _, name in files]
    classes = tuple(sorted({name for name in folders if name != '.'}))
    if len(classes) < 2:
        classes = ()
    targets = np.array([[own == name for name in classes] for own in folders], bool)
    names = [name.rpartition('.')[0] for _, name in files]
    if len(set(names)) < len(names):
        names = [name for _, name in files]
    if len(set(names)) < len(names):
        names = [str(file) for file, _ in files]
    reader = PictureImporter(window='range')

    def read(row: int) -> np.ndarray:
        try:
            return reader.read(str(files[row][0]))[0]
        except CaseError as error:
            raise UserError(str(error)) from error

    stats = [file.stat() for file, _ in files]
    return Pictures(
        name=paths[0].name,
        image_ids=tuple(names),
        patients=tuple(
            match_patient(pattern, f'/{name}', own)
            for (_, name), own in zip(files, names)
        ),
        has_patients=pattern is not None,
        classes=classes,
        targets=targets.reshape(len(files), len(classes)),
        known=np.array([name in classes for name in folders]),
        reader=read,
        content=_digest(
            [f'{n} {s.st_size} {s.st_mtime_ns}' for n, s in zip(names, stats)]
        ),
    )
