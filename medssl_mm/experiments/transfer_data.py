"""Data sets of transfer tables: their images, labels and split.

Mode 'strict' takes them as their config says, and parts patients; 'compat' parts
and labels images as the published comparison did, which differs between sets and
protocols: :mod:`medssl_mm.datasets.image_sets` says how.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl_mm.analysis.transfer import ACCURACY, AUROC
from medssl_mm.checkpoint_features import (
    ALL,
    SUBSETS,
    ImageSubsets,
    check_no_shared_patients,
    config_of_images,
)
from medssl_mm.datasets.image_sets import ImageSet, known_set
from medssl_mm.datasets.shared_sets import read_images
from medssl_mm.errors import UserError
from medssl_mm.files import write_json
from medssl_mm.store import open_store
from medssl_mm.store.compat_splits import (
    DESCRIPTION,
    POOL_SIZE,
    compat_lists,
    official_lists,
)
from medssl_mm.store.header import IMAGES
from medssl_mm.store.splits import IMAGE, Split, load_split

from .transfer_table import (
    COMPAT,
    FEW_SHOT,
    FINETUNE,
    LINEAR,
    DatasetEntry,
    TransferTable,
)

# Share that is trained on where no split was published.
_TRAINED = 0.8


def digest_of(*content: Any) -> str:
    """Eight hex digits that change with the content, plain data."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class ComparedRules:
    """What mode 'compat' makes of a data set for some protocols.

    Args:
        labels (Mapping): Settings of the data set class; None: left out.
        split (str): Where the split is from.
        pool (tuple[str], optional): Images that few-shot episodes draw from;
            None: all.
        prepared (bool): See :class:`.ImageSet`.
    """

    labels: Mapping[str, Any]
    split: str
    pool: tuple[str, ...] | None
    prepared: bool


@dataclass(frozen=True, eq=False)
class PlannedDataset:
    """A data set of a table, with what is known of it.

    Args:
        entry (DatasetEntry): What the table says.
        images (dict): Settings of its data set class.
        digest (str): Of images, labels and split.
        multi_label (bool): Whether an image may have several classes.
        side (int): The shorter one of the stored images, pixels.
        names (tuple[str]): What the set is called: in its folder, and its header.
        rules (ComparedRules, optional): In mode 'compat'. Defaults to None.
    """

    entry: DatasetEntry
    images: dict
    digest: str
    multi_label: bool
    side: int
    names: tuple[str, ...]
    rules: ComparedRules | None = None

    @property
    def row(self) -> ImageSet | None:
        """What is known of it by name."""
        return known_set(self.names)

    @property
    def pictures_of(self) -> tuple[str, ...]:
        """Image sets that its pictures are of: itself, and what the table says."""
        return (*self.names, *self.entry.pictures_of)

    @property
    def metric(self) -> str:
        """Score by which the published comparison chose, and which it reported."""
        if self.multi_label:
            return AUROC
        return self.row.metric if self.row else ACCURACY

    @property
    def facts(self) -> dict:
        """For results, plain data."""
        domain = self.entry.domain or (self.row.domain if self.row else '')
        return dict(
            name=self.entry.name,
            title=self.entry.title or self.entry.name,
            domain=domain,
            images=self.images,
            sets=list(self.names),
            metric=self.metric,
        )

    @property
    def task(self) -> dict:
        """For frozen steps, plain data: the facts, and what is not in results."""
        rules = self.rules
        return dict(
            **self.facts,
            pool=rules and rules.pool,
            prepared=bool(rules and rules.prepared),
        )

    def rules_of(self, kind: str) -> list[str]:
        """What mode 'compat' does with it under a kind of protocol, in words."""
        if self.rules is None:
            return []
        found = [self.rules.split] + [
            f'without {name}' if value is None else f'{name}={value!r}'
            for name, value in self.rules.labels.items()
        ]
        if kind == FEW_SHOT and self.rules.prepared:
            found.append(
                f'episodes draw from the first {POOL_SIZE:,} images; the shorter side '
                'of pictures is scaled to the size of the encoder, bicubic'
            )
        elif kind == FEW_SHOT:
            found.append(
                'episodes draw from all images; both sides of pictures are scaled to '
                '1.15 times the size of the encoder, bilinear'
            )
        if kind in (LINEAR, FINETUNE):
            found.append(f'chosen by {self.metric}')
        return found


def images_of(entry: DatasetEntry, labels: Mapping[str, Any] | None = None) -> dict:
    """Settings of the data set class that an entry asks for.

    Args:
        entry (DatasetEntry): What the table says.
        labels (Mapping, optional): Settings in place of those of the file of
            ``configs/data``; None leaves one out. Defaults to None: none.

    Raises:
        UserError: There is no such file, or it names no images.
    """
    if entry.data_root:
        found = dict(type='medssl_mm.ClassificationImages', data_root=entry.data_root)
    else:
        found = read_images(entry.data or entry.name)
    if entry.split:
        found['split'] = entry.split
    found.update(labels or {})
    left_out = [name for name, value in (labels or {}).items() if value is None]
    return {k: v for k, v in found.items() if k not in left_out} | entry.options


def plan_dataset(
    entry: DatasetEntry, table: TransferTable
) -> dict[str, PlannedDataset]:
    """Look at a data set: images, labels and split.

    Returns:
        dict: By kind of protocol; those that see the same images under the same
        labels have the same one.

    Raises:
        UserError: It is not there, or its split has a patient on two sides.
    """
    found: dict[str, PlannedDataset] = {}
    names = _names(entry)
    row = known_set(names)
    for kind in dict.fromkeys(protocol.kind for protocol in table.protocols):
        labels: dict[str, Any] = {}
        if table.mode == COMPAT and row is not None:
            own = entry.options
            labels = {k: v for k, v in row.labelled_for(kind).items() if k not in own}
        same = [
            dataset
            for dataset in found.values()
            if dataset.rules is None or dataset.rules.labels == labels
        ]
        found[kind] = same[0] if same else _plan(entry, table, names, labels)
    return found


def _names(entry: DatasetEntry) -> tuple[str, ...]:
    """What the set of an entry is called."""
    root = images_of(entry)['data_root']
    try:
        store = open_store(root, IMAGES)
    except UserError as error:
        raise UserError(f'data set {entry.name}: {error}') from error
    return tuple(dict.fromkeys((Path(root).name, store.name)))


def _plan(
    entry: DatasetEntry,
    table: TransferTable,
    names: tuple[str, ...],
    labels: Mapping[str, Any],
) -> PlannedDataset:
    images, rules = images_of(entry, labels), None
    if table.mode == COMPAT:
        row = known_set(names)
        images, pool, words = _compared_split(entry, images, row, Path(table.runs_dir))
        prepared = row is not None and row.prepared
        rules = ComparedRules(labels, words, pool if prepared else None, prepared)
    subsets = ImageSubsets(config_of_images(images, f'data set {entry.name}'))
    try:
        everything = subsets.subset(ALL)
        parts = [subsets.subset(name) for name in SUBSETS]
    except UserError as error:
        raise UserError(f'data set {entry.name}: {error}') from error
    if table.mode != COMPAT:
        check_no_shared_patients(parts)
    store = everything.dataset.store
    contents = {info.image_id: info.content_sha256 for info in store.infos()}
    digest = digest_of(
        [(name, contents.get(name)) for name in everything.image_ids],
        [str(label) for label in everything.raw_labels],
        [list(part.image_ids) for part in parts],
        everything.classes,
        rules and rules.pool,
        # Rules that make the same labels are steps of their own all the same.
        *([] if rules is None else [dict(labels), rules.prepared]),
    )
    return PlannedDataset(
        entry,
        images,
        digest,
        everything.dataset.metainfo.get('task') == 'multi-label',
        min(store.size),
        names,
        rules,
    )


def _compared_split(
    entry: DatasetEntry, images: dict, row: ImageSet | None, runs: Path
) -> tuple[dict, tuple[str, ...] | None, str]:
    """Put a data set on the split by image that the published comparison drew.

    Returns:
        tuple: Its settings; the images that few-shot episodes of prepared pictures
        draw from; the split in words.
    """
    store = open_store(images['data_root'], IMAGES)
    known = {path.stem for path in Path(store.root, 'splits').glob('[!.]*.json')}
    chosen, published = images.get('split'), f'{store.name}-compat'
    own = chosen is not None and load_split(store.root, chosen).by == IMAGE
    if published in known and (chosen == published or not own):
        drawn = tuple(load_split(store.root, f'{published}-pool')['test'])
        return {**images, 'split': published}, drawn, f'split {published}'
    if own:
        return images, None, f'split {chosen}, as the table has it'
    name = f'{entry.name}-compat'
    if row is not None and row.official in known:
        official = load_split(store.root, row.official)
        lists = official_lists(
            entry.name, [*official['train'], *official['val']], official['test']
        )
        words = (
            f'test images of {row.official}; validated on a fifth of the others, drawn '
            'by the rule of the published comparison'
        )
    else:
        subsets = ImageSubsets(config_of_images({**images, 'split': None}, entry.name))
        lists = compat_lists(entry.name, subsets.subset(ALL).image_ids, _TRAINED)
        words = 'no split was published: drawn by the rule of the published comparison'
    if not lists:
        raise UserError(f'data set {entry.name}: too few images to draw a split from')
    split = Split(name, store.name, lists[name], description=DESCRIPTION, by=IMAGE)
    path = runs.absolute() / 'splits' / f'{split.protocol}-{split.hash}.json'
    write_json(path, split.to_dict())
    pool = tuple(lists.get(f'{name}-pool', {}).get('test', ())) or None
    return {**images, 'split': str(path)}, pool, words
