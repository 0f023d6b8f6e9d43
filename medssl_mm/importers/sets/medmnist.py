"""MedMNIST: a set of small images, labels and subsets in one archive."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.importers.base import Discovery, LoadedImage, SourceCase
from medssl_mm.importers.images import ImageDiscovery, ImageImporter
from medssl_mm.importers.naming import find_files
from medssl_mm.importers.options import option
from medssl_mm.importers.readers.npz import SUBSETS, read_archive
from medssl_mm.store.images import MULTI_LABEL, SINGLE_LABEL
from medssl_mm.store.known import KNOWN
from medssl_mm.store.splits import Split

# Classes by label value, and the number of images as published.
PUBLISHED = {
    'breastmnist': (('malignant', 'normal or benign'), (546, 78, 156)),
    'chestmnist': (KNOWN['nih-cxr14'].classes, (78468, 11219, 22433)),
    'pneumoniamnist': (KNOWN['pneumoniamnist'].classes, (4708, 524, 624)),
}


@dataclass(frozen=True)
class MedMNISTImporter(ImageImporter):
    """One archive of MedMNIST with two-dimensional images.

    Images keep the size they have in the archive. It names no patients: each
    image counts as a patient of its own, so intervals are over images, and of
    a leak only equal pixels can be seen; a note says so. Split:
    '<set>-subsets', the subsets of the archive, of which training gives up
    what validation or test hold, and validation what test holds.
    """

    images: str | None = option(
        "the archive, relative to --src; default: '*mnist*.npz'", metavar='GLOB'
    )
    classes: str | None = option(  # type: ignore[misc, assignment]
        'names of the label values 0, 1, ... separated by commas; default: those '
        "published, or 'class 0', 'class 1', ...",
        flags=('--labels-file',),
    )

    name = 'medmnist'
    conflicts_allowed = True
    layout = """\
    <src>/pneumoniamnist.npz (one archive; more than one: choose it with
    --images NAME.npz) with the arrays {train,val,test}_images, uint8
    (N, H, W) or (N, H, W, 3), and {train,val,test}_labels, integers (N, 1)
    or (N, classes)"""

    def discover(self, src: Path) -> ImageDiscovery:
        """List the images of the archive."""
        found = find_files(Path(src), self.images or '*mnist*.npz')
        if len(found) != 1:
            raise self.nothing_found(
                src,
                f'Found {len(found)} archives'
                + (f': {", ".join(p.name for p in found[:8])}' if found else '')
                + '.',
            )
        path = found[0]
        name = re.sub(r'_\d+$', '', path.stem)  # pneumoniamnist_64
        archive = read_archive(str(path))
        shape = archive['train_images'].shape
        width = archive['train_labels'].shape[1]
        notes = _notes(path, name, archive)
        cases, subsets = self._cases(path, archive, width, notes)
        return self.found(
            cases,
            name=name,
            classes=self._class_names(path, name, archive, width),
            task=SINGLE_LABEL if width == 1 else MULTI_LABEL,
            channels=3 if len(shape) == 4 else 1,
            size=shape[1],
            notes=notes,
            lists={f'{name}-subsets': subsets},
        )

    def _cases(
        self, path: Path, archive: dict, width: int, notes: list[str]
    ) -> tuple[list[SourceCase], dict[str, list[str]]]:
        """Cases, and the ids of the subsets."""
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
                cases.append(
                    self.image_case(
                        image_id,
                        patient,
                        path,
                        label[0] if width == 1 else tuple(label),
                        subset=name,
                        index=index,
                    )
                )
                if owner == name:
                    subsets[name].append(image_id)
                else:
                    shared += 1
        if shared:
            notes.append(
                f'{shared} image(s) of train or val have the pixels of one '
                'in a later subset; they are in the set, but not in the '
                'split.'
            )
        subsets['pretrain'] = [*subsets['train'], *subsets['val']]
        return cases, subsets

    def _class_names(
        self, path: Path, name: str, archive: dict, width: int
    ) -> tuple[str, ...]:
        highest = max(int(archive[f'{subset}_labels'].max()) for subset in SUBSETS)
        count = width if width > 1 else highest + 1
        if self.classes:
            names = tuple(text.strip() for text in self.classes.split(','))
        else:
            unnamed = tuple(f'class {index}' for index in range(count))
            names = PUBLISHED.get(name, (unnamed,))[0]
        if len(names) < count or width > 1 and len(names) != count:
            raise UserError(
                f'{path} has {count} classes, but {len(names)} name(s): '
                f'{", ".join(names)}; give all with --classes'
            )
        return names

    def load(self, case: SourceCase) -> LoadedImage:
        """Take one image out of the archive."""
        images = read_archive(case.image)[f'{case.extra["subset"]}_images']
        return LoadedImage(np.array(images[case.extra['index']]))

    def drawn_splits(
        self, found: Discovery, cases: Sequence[Any], notes: list[str]
    ) -> list[Split]:
        """None: there are no patients to part."""
        return []


def _notes(path: Path, name: str, archive: dict) -> list[str]:
    notes = [
        f'{path.name} names no patients: every image counts as one, so '
        'intervals are over images, and images of one patient may be in '
        'more than one subset.'
    ]
    counts = tuple(len(archive[f'{subset}_images']) for subset in SUBSETS)
    published = PUBLISHED.get(name, (None, counts))[1]
    if counts != published:
        notes.append(
            f'{path.name} holds {" / ".join(map(str, counts))} images '
            f'({" / ".join(SUBSETS)}), the published set '
            f'{" / ".join(map(str, published))}: figures cannot be '
            'compared with those of others.'
        )
    return notes
