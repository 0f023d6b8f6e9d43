"""What data sets of slices and of images share: samples of a split."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from medssl_mm.datasets.image_sets import IMAGE_SETS
from medssl_mm.errors import UserError
from medssl_mm.provenance import Cases
from medssl_mm.store import ImageStore, SliceStore, open_store
from medssl_mm.store.header import IMAGES
from medssl_mm.store.known import KNOWN
from medssl_mm.store.splits import IMAGE, load_split, take_fraction

# Whose patients are known by their ids; a phantom of another seed has others.
_PUBLISHED = {*KNOWN, *IMAGE_SETS} - {'phantom'}


class SplitDataset(BaseDataset):
    """Samples of the patients of one or several subsets of a split.

    A subclass keeps one array (or several) with an entry per sample, names
    them in ``_sample_arrays`` and fills them in ``full_init``.

    Args:
        data_root (str): Folder of the store.
        split (str | None): Name of a split in ``<data_root>/splits``, or
            path of a split file. Defaults to None: everything.
        subset (str | Sequence[str]): Subset of the split, or several that
            are joined. Without a split it is not used. Defaults to 'train'.
        fraction (float): Share of the subset's patients, above 0 up to 1;
            a smaller share is part of a larger one. Defaults to 1.0.
        fraction_seed (int): Seed of that choice. Defaults to 0.
        labelled (bool): Only samples whose label is known. Defaults to False.
        without (Sequence[dict]): Patients to leave out of what was chosen: those
            of ``dict(data_root=, split=, subset=)`` each (one subset or several),
            of any store whose patients have the same ids, e.g. those that another
            data set tests on. Defaults to ().
        seed (int): Seed of augmentation where the sampler brings none.
            Defaults to 0.
        pipeline (Sequence): Transforms. Defaults to ().
        **kwargs: metainfo, test_mode, lazy_init and indices, as in mmengine.

    Raises:
        ValueError: The fraction is out of range or has no split.
        UserError: Store, split, subset or labels are missing, the classes are
            not those of the store, or no sample is left.
    """

    METAINFO: dict = dict()
    known: str | None = None  # its name in medssl_mm.store.known
    _everything = 'all-cases'
    _sample_arrays: tuple[str, ...] = ()

    def __init__(
        self,
        data_root: str,
        split: str | None = None,
        subset: str | Sequence[str] = 'train',
        fraction: float = 1.0,
        fraction_seed: int = 0,
        labelled: bool = False,
        without: Sequence[Mapping] = (),
        seed: int = 0,
        pipeline: Sequence[dict | Callable] = (),
        **kwargs: Any,
    ) -> None:
        owner = type(self).__name__
        if not 0 < fraction <= 1:
            raise ValueError(
                f'{owner}: fraction must be above 0 and at most 1, got {fraction}.'
            )
        if fraction < 1 and split is None:
            raise ValueError(
                f'{owner}: fraction={fraction} takes a share of '
                'a subset; name a split as well.'
            )
        self.split = split
        self.subsets = [subset] if isinstance(subset, str) else list(subset)
        self.fraction = fraction
        self.fraction_seed = fraction_seed
        if without and split is None:
            raise ValueError(
                f'{owner}: without={list(without)} leaves patients out of a subset; '
                'name a split as well.'
            )
        self.labelled = labelled
        self.without = [dict(part) for part in without]
        self.seed = seed
        self.protocol = self._everything
        self.split_hash = ''
        self._keeps_test_apart = False
        super().__init__(
            data_root=str(data_root),
            data_prefix=dict(),
            serialize_data=False,
            pipeline=list(pipeline),
            max_refetch=0,
            **kwargs,
        )

    @classmethod
    def classes_by_settings(
        cls, classes: Sequence[str], settings: dict
    ) -> tuple[str, ...]:
        """Name the classes of the samples without opening the data.

        Args:
            classes: Classes of the store.
            settings: The arguments of the data set.
        """
        selected = (settings.get('metainfo') or {}).get('classes')
        return tuple(classes if selected is None else selected)

    @classmethod
    def task_by_settings(cls, task: str | None, settings: dict) -> str | None:
        """Tell the task of the samples without opening the data.

        Args:
            task: That of the store; None: it has none.
            settings: The arguments of the data set.
        """
        return task

    def _require_classes(self, store: SliceStore | ImageStore, advice: str) -> None:
        """Compare the class names of METAINFO, if any, with the store's."""
        expected = self.METAINFO.get('classes')
        if expected is not None and tuple(expected) != tuple(store.classes):
            raise UserError(
                f'{type(self).__name__} expects the classes '
                f'{list(expected)}, but {store.root} holds '
                f'{list(store.classes)} (data set {store.name!r}). Use the '
                f'data set class that belongs to it, or {advice}, which '
                'takes the classes as they are.'
            )

    def _chosen_ids(
        self, patient_of: Callable, classes_of: Callable | None = None
    ) -> list[str] | None:
        """Ids of the split's subsets, sorted; None without a split."""
        if self.split is None:
            return None
        split = load_split(self.data_root, self.split)
        self.protocol, self.split_hash = split.protocol, split.hash
        self._metainfo['split_by'] = split.by
        self._keeps_test_apart = 'pretrain' in split.subsets
        chosen = sorted(
            {
                sample_id
                for subset in self.subsets
                for sample_id in take_fraction(
                    split,
                    subset,
                    self.fraction,
                    self.fraction_seed,
                    patient_of,
                    classes_of,
                )
            }
        )
        return self._leave_out(chosen, patient_of) if self.without else chosen

    def _leave_out(self, chosen: list[str], patient_of: Callable) -> list[str]:
        excluded = set[str]().union(*map(self._patients_in, self.without))
        kept = [name for name in chosen if patient_of(name) not in excluded]
        patients = {patient_of(name) for name in set(chosen) - set(kept)}
        where = ', '.join(' '.join(map(str, part.values())) for part in self.without)
        print_log(
            f'{type(self).__name__} ({self.data_root}, {self._where}): left out are '
            f'{len(chosen) - len(kept)} of {len(chosen)} of {len(patients)} patients; '
            f'{len(excluded)} patients are in {where}'
            + ('' if patients else ': none is here, are their ids of the same kind?'),
            logger='current',
            level=logging.INFO if patients else logging.WARNING,
        )
        return kept

    def _patients_in(self, part: dict) -> set[str]:
        wanted = ('data_root', 'split', 'subset')
        if sorted(part) != sorted(wanted):
            raise UserError(
                f'{type(self).__name__}: an entry of without has {", ".join(wanted)}; '
                f'got {part}'
            )
        split = load_split(part['data_root'], part['split'])
        store = open_store(part['data_root'])
        subsets = part['subset']
        return {
            store.patient_of(name)
            for subset in ([subsets] if isinstance(subsets, str) else subsets)
            for name in split[subset]
        }

    def cases(self) -> Cases:
        """Cases or images of all samples, by content: what a network is shown."""
        self.full_init()
        store = open_store(self.data_root)
        ids, contents, patients = self._shown()
        return Cases(
            dataset=store.name,
            protocol=self.protocol,
            split_hash=self.split_hash,
            subsets=tuple(self.subsets) if self.split is not None else (),
            ids=ids,
            contents=contents,
            patients=patients,
            kind='image' if store.kind == IMAGES else 'case',
            by_image=self._metainfo.get('split_by') == IMAGE,
            keeps_test_apart=self._keeps_test_apart,
            published=store.name in _PUBLISHED,
            whole=lambda: (info.content_sha256 for info in store.infos()),
        )

    def _shown(self) -> tuple[list[str], list[str], list[str]]:
        """Names, digests and patients of the cases, or images, of all samples."""
        raise NotImplementedError

    @property
    def _where(self) -> str:
        """What was chosen, for messages."""
        text = f'split {self.split}, subset {"+".join(self.subsets)}'
        if self.fraction < 1:
            text += (
                f', fraction {self.fraction} with fraction_seed {self.fraction_seed}'
            )
        return text

    def _refuse_empty(self, left: str, total: str, remedy: str) -> NoReturn:
        """Raise, as nothing is left."""
        raise UserError(
            f'{type(self).__name__}: no {left} is left of {total} in '
            f'{self.data_root} ({self._where}): {remedy}.'
        )

    def _finish_index(self) -> None:
        """Take the first or listed samples; say where they are from."""
        self._fully_initialized = True
        if self._indices is not None:
            self.get_subset_(self._indices)
        self._metainfo.update(protocol=self.protocol, split_hash=self.split_hash)

    def load_data_list(self) -> list[dict]:
        """List all samples as dicts; for inspection, training never does."""
        self.full_init()
        return [self.get_data_info(index) for index in range(len(self))]

    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep the first (or, negative, last) n, or the listed samples."""
        self.full_init()
        chosen: slice | np.ndarray = np.asarray(indices, np.int64)
        if isinstance(indices, int):
            chosen = slice(indices) if indices >= 0 else slice(indices, None)
        for name in self._sample_arrays:
            setattr(self, name, getattr(self, name)[chosen])

    def get_subset(self, indices: int | Sequence[int]) -> SplitDataset:
        """Return a copy that holds part of the samples."""
        part = copy.copy(self)
        part.get_subset_(indices)
        return part
