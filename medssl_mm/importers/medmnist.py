"""MedMNIST: a set of small images, labels and subsets in one archive."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.importers.base import LoadedImage, SourceCase
from medssl_mm.importers.chest_xray import FINDINGS
from medssl_mm.importers.images import ImageImporter
from medssl_mm.store.images import MULTI_LABEL, SINGLE_LABEL
from medssl_mm.store.known import KNOWN
from medssl_mm.store.splits import Split

SUBSETS = ('train', 'val', 'test')
# Classes by label value, and the number of images as published.
KNOWN = {
    'breastmnist': (('malignant', 'normal or benign'), (546, 78, 156)),
    'chestmnist': (FINDINGS, (78468, 11219, 22433)),
    'pneumoniamnist': (KNOWN['pneumoniamnist'].classes, (4708, 524, 624)),
}


class MedMNISTImporter(ImageImporter):
    """One archive of MedMNIST with two-dimensional images.

    Images keep the size they have in the archive. It names no patients: each
    image counts as a patient of its own, so intervals are over images, and of
    a leak only equal pixels can be seen; a note says so. Split:
    '<set>-subsets', the subsets of the archive, of which training gives up
    what validation or test hold, and validation what test holds. Options of
    :meth:`discover`:

        images (str): Glob of the archive, relative to the source. Default:
            '*mnist*.npz'.
        classes (str): Names of the label values 0, 1, ... separated by
            commas. Default: those published, or 'class 0', 'class 1', ...
    """

    name = 'medmnist'
    classes = ()  # those of the archive
    options = ('images', 'classes')
    layout = """\
    <src>/pneumoniamnist.npz (one archive; more than one: choose it with
    --images NAME.npz) with the arrays {train,val,test}_images, uint8
    (N, H, W) or (N, H, W, 3), and {train,val,test}_labels, integers (N, 1)
    or (N, classes)"""

    def discover(
        self, src: Path, images: str | None = None, classes: str | None = None
    ) -> list[SourceCase]:
        """List the images of the archive."""
        found = sorted(Path(src).glob(images or '*mnist*.npz'))
        if len(found) != 1:
            raise self.nothing_found(
                src,
                f'Found {len(found)} archives'
                + (f': {", ".join(p.name for p in found[:8])}' if found else '')
                + '.',
            )
        path = found[0]
        self.name = re.sub(r'_\d+$', '', path.stem)  # pneumoniamnist_64
        archive = read_archive(str(path))
        shape = archive['train_images'].shape
        self.size = shape[1]
        self.channels = 3 if len(shape) == 4 else 1
        width = archive['train_labels'].shape[1]
        self.task = SINGLE_LABEL if width == 1 else MULTI_LABEL
        counts = tuple(len(archive[f'{name}_images']) for name in SUBSETS)
        self._set_classes(path, archive, width, classes)
        self._set_notes(path, counts)
        return self._cases(path, archive, width)

    def _cases(self, path, archive, width) -> list[SourceCase]:
        cases, shared = [], 0
        subsets: dict[str, list[str]] = {name: [] for name in SUBSETS}
        first: dict[bytes, tuple[str, str]] = {}
        for name in reversed(SUBSETS):
            labels = archive[f'{name}_labels'].tolist()
            for index, (pixels, label) in enumerate(
                zip(archive[f'{name}_images'], labels)
            ):
                image_id = f'{name}-{index:06d}'
                # Equal pixels: one patient, so that no split may part them.
                content = hashlib.blake2b(pixels.tobytes()).digest()
                patient, owner = first.setdefault(content, (image_id, name))
                case = self.image_case(
                    image_id, patient, path, label[0] if width == 1 else tuple(label)
                )
                case.extra.update(subset=name, index=index)
                cases.append(case)
                if owner == name:
                    subsets[name].append(image_id)
                else:
                    shared += 1
        if shared:
            self.notes.append(
                f'{shared} image(s) of train or val have the pixels of one '
                'in a later subset; they are in the set, but not in the '
                'split.'
            )
        subsets['pretrain'] = [*subsets['train'], *subsets['val']]
        self.lists = {f'{self.name}-subsets': subsets}
        return cases

    def _set_classes(self, path, archive, width, classes) -> None:
        highest = max(int(archive[f'{name}_labels'].max()) for name in SUBSETS)
        count = width if width > 1 else highest + 1
        if classes:
            names = tuple(name.strip() for name in classes.split(','))
        else:
            names = KNOWN.get(
                self.name, (tuple(f'class {index}' for index in range(count)),)
            )[0]
        if len(names) < count or width > 1 and len(names) != count:
            raise UserError(
                f'{path} has {count} classes, but {len(names)} name(s): '
                f'{", ".join(names)}; give all with --classes'
            )
        self.classes = names

    def _set_notes(self, path, counts) -> None:
        self.notes = [
            f'{path.name} names no patients: every image counts as one, so '
            'intervals are over images, and images of one patient may be in '
            'more than one subset.'
        ]
        published = KNOWN.get(self.name, (None, counts))[1]
        if counts != published:
            self.notes.append(
                f'{path.name} holds {" / ".join(map(str, counts))} images '
                f'({" / ".join(SUBSETS)}), the published set '
                f'{" / ".join(map(str, published))}: figures cannot be '
                'compared with those of others.'
            )

    def load(self, case: SourceCase) -> LoadedImage:
        """Take one image out of the archive."""
        images = read_archive(case.image)[f'{case.extra["subset"]}_images']
        return LoadedImage(images[case.extra['index']].copy())

    def drawn_splits(self, cases) -> list[Split]:
        """None: there are no patients to part."""
        return []


def read_archive(path: str) -> dict[str, np.ndarray]:
    """Read and check the six arrays of an archive.

    The last one read is kept, as its images are asked for one by one.

    Args:
        path (str): The ``.npz`` file.

    Returns:
        dict: ``{train,val,test}_images``, uint8 ``(N, H, W)`` or
        ``(N, H, W, 3)``, and ``{train,val,test}_labels``, integers
        ``(N, 1)`` or, of 0 and 1, ``(N, C)``.

    Raises:
        UserError: Unreadable, an array is missing or has another form.
    """
    return _read_archive(path, os.stat(path).st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read_archive(path: str, time: int) -> dict[str, np.ndarray]:
    names = [f'{subset}_{what}' for what in ('images', 'labels') for subset in SUBSETS]
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file.files]
            if missing:
                raise UserError(
                    f'{path} has no array {", ".join(missing)}; its arrays '
                    f'are {", ".join(file.files[:12])}'
                )
            archive = {name: file[name] for name in names}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f'{path} is damaged or no NumPy archive ({error}); fetch it again'
        ) from None
    first = archive['train_images'].shape
    for name in names[:3]:
        shape, kind = archive[name].shape, archive[name].dtype
        if (
            kind != np.uint8
            or not shape[0]
            or shape[1:] != first[1:]
            or len(shape) not in (3, 4)
            or shape[1] != shape[2]
            or len(shape) == 4
            and shape[3] != 3
        ):
            raise UserError(
                f'{path}: {name} is {kind} {shape}; expected uint8, square, '
                '(N, H, W) or (N, H, W, 3), alike in all subsets'
                + (
                    ' (3D sets cannot be imported)'
                    if len(shape) == 4 and shape[3] == shape[1]
                    else ''
                )
            )
    width = archive['train_labels'].shape[1:]
    for images, labels in zip(names[:3], names[3:]):
        found, kind = archive[labels].shape, archive[labels].dtype
        if (
            kind.kind not in 'iu'
            or len(found) != 2
            or found != (len(archive[images]), *width)
        ):
            raise UserError(
                f'{path}: {labels} is {kind} {found}; expected integers '
                f'({len(archive[images])}, 1) or, alike in all subsets, '
                '(…, classes)'
            )
        low, high = int(archive[labels].min()), int(archive[labels].max())
        if low < 0 or width[0] > 1 and high > 1:
            raise UserError(
                f'{path}: {labels} has values from {low} to {high}; '
                'expected 0, 1, ... (one column) or 0 and 1 (several)'
            )
    return archive
