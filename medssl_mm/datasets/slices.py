"""Data sets of slices over a slice store, for both hosts.

Without labels they serve mmselfsup, with labels mmseg. The data sets differ
by their METAINFO alone: the class names, which the store must agree with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medssl_mm.datasets.sampler import EpochIndex, companion_index, sample_rng
from medssl_mm.datasets.split_dataset import SplitDataset
from medssl_mm.datasets.transforms.loading import LoadSliceLabel
from medssl_mm.registry import DATASETS
from medssl_mm.store import CaseInfo, SliceStore, open_store, slice_name
from medssl_mm.store.header import SLICES
from medssl_mm.store.known import KNOWN

_STATISTICS = ('min', 'max', 'mean', 'std', 'p00_5', 'p99_5')


@DATASETS.register_module()
class SliceDataset(SplitDataset):
    """Slices of the cases of one split.

    Starting reads the description of each case, no image. The index is kept
    in a few arrays (8 bytes a slice), which worker processes share.

    Each sample is a dict with sample_idx, case_id, patient_id, slice_index,
    spacing ((z, y, x) in mm, or None), store_root, img_path (for messages:
    ``<file>#<slice>``), intensity (statistics of the case; with several
    channels a list each), protocol,
    split_hash, rng, and, for mmseg, label_map, reduce_zero_label and
    seg_fields.

    Args:
        *args: As :class:`.SplitDataset`; the first is the folder of the slice
            store.
        min_foreground (float): Slices with a smaller share of pixels other
            than air are left out, 0-1. Defaults to 0.0.
        only_with_foreground_label (bool): Leave out slices whose label is
            all background (needs labelled=True; reads the labels once at
            the start). Defaults to False.
        slice_step (int): Take every n-th slice of a case. Defaults to 1.
        metainfo (dict | None): May hold ``classes``, a selection of the
            class names: the others count as background. Defaults to None.
        unlabelled (dict | None): A second data set of the same store, with all
            cases of the same subset, no labels, and the pipeline less its
            ``LoadSliceLabel``; the entries are settings of it that differ, such
            as ``subset``. Each sample becomes a pair with a slice of it, drawn
            anew in every epoch; the loader needs
            ``collate_fn=dict(type='medssl_mm.collate_pairs')``. Defaults to
            None.
        **kwargs: As :class:`.SplitDataset`.
    """

    _sample_arrays = ('_sample_cases', '_sample_slices')

    def __init__(
        self,
        data_root: str,
        *args: Any,
        min_foreground: float = 0.0,
        only_with_foreground_label: bool = False,
        slice_step: int = 1,
        metainfo: dict | None = None,
        unlabelled: Mapping | None = None,
        **kwargs: Any,
    ) -> None:
        owner = type(self).__name__
        if not 0 <= min_foreground <= 1:
            raise ValueError(
                f'{owner}: min_foreground is a share of pixels '
                f'(0-1), got {min_foreground}.'
            )
        if not isinstance(slice_step, int) or slice_step < 1:
            raise ValueError(
                f'{owner}: slice_step must be an int of at least 1, got {slice_step!r}.'
            )
        if only_with_foreground_label and not kwargs.get('labelled'):
            raise ValueError(
                f'{owner}: only_with_foreground_label looks at '
                'the labels; set labelled=True as well.'
            )
        self.min_foreground = min_foreground
        self.only_with_foreground_label = only_with_foreground_label
        self.slice_step = slice_step
        self.reduce_zero_label = False
        store = open_store(data_root, SLICES)
        self._require_classes(store, 'SliceDataset')
        selected = (metainfo or {}).get('classes')
        self.label_map = None if selected is None else store.label_map(selected)
        super().__init__(data_root, *args, metainfo=metainfo, **kwargs)
        self._complete_metainfo(store)
        self.unlabelled = None if unlabelled is None else self._beside(unlabelled)

    def _beside(self, settings: Mapping) -> SliceDataset:
        if not self.labelled:
            raise ValueError(
                f'{type(self).__name__}: unlabelled={dict(settings)} goes with '
                'labelled slices; set labelled=True as well.'
            )
        steps = [
            step
            for step in self.pipeline.transforms
            if not isinstance(step, LoadSliceLabel)
        ]
        mine = dict(
            split=self.split,
            subset=self.subsets,
            without=self.without,
            seed=self.seed,
            min_foreground=self.min_foreground,
            slice_step=self.slice_step,
            pipeline=steps,
        )
        return type(self)(self.data_root, **{**mine, **settings})

    def __getitem__(self, idx: int) -> Any:
        """Load and transform one slice, or the pair with one without label.

        Args:
            idx: Index, or the EpochIndex of a ResumableSampler.
        """
        sample = super().__getitem__(idx)
        if self.unlabelled is None:
            return sample
        other = companion_index(idx, self.seed, len(self), len(self.unlabelled))
        return sample, self.unlabelled[other]

    def _complete_metainfo(self, store: SliceStore) -> None:
        self._metainfo.setdefault('classes', list(store.classes))
        colours = dict(zip(store.classes, store.palette))
        if len(self._metainfo.get('palette', ())) != len(self._metainfo['classes']):
            self._metainfo['palette'] = [
                list(colours[name]) for name in self._metainfo['classes']
            ]
        self._metainfo['dataset_name'] = store.name
        self._metainfo['channels'] = list(store.channels)

    def full_init(self) -> None:
        """Index the slices; cheap to call again."""
        if self._fully_initialized:
            return
        store = open_store(self.data_root, SLICES)
        chosen = self._chosen_ids(store.patient_of)
        infos = [
            store.case(case_id)
            for case_id in (store.case_ids if chosen is None else chosen)
        ]
        samples = [self._choose_slices(store, info) for info in infos]
        self._check_not_empty(infos, samples)
        # Arrays, not objects: a forked worker would copy every page of
        # objects that it merely looks at.
        self._case_ids = np.array([info.case_id for info in infos])
        self._patient_ids = np.array([info.patient_id for info in infos])
        self._contents = np.array([info.content_sha256 for info in infos])
        self._spacings = np.array(
            [(np.nan,) * 3 if info.spacing is None else info.spacing for info in infos],
            np.float64,
        ).reshape(-1, 3)
        missing = np.nan if len(store.channels) == 1 else [np.nan] * len(store.channels)
        self._intensities = np.array(
            [
                [info.intensity.get(name, missing) for name in _STATISTICS]
                for info in infos
            ],
            np.float64,
        )  # (cases, statistics), with C channels (cases, statistics, C)
        self._sample_cases = np.repeat(
            np.arange(len(infos), dtype=np.int32), [len(indices) for indices in samples]
        )
        self._sample_slices = np.concatenate(samples).astype(np.int32)
        self._finish_index()

    def _choose_slices(self, store: SliceStore, info: CaseInfo) -> np.ndarray:
        keep = np.zeros(info.shape[0], bool)
        keep[:: self.slice_step] = True
        if self.labelled:
            if not info.labelled:
                keep[:] = False
            elif info.labelled_slices is not None:
                known = np.zeros_like(keep)
                known[list(info.labelled_slices)] = True
                keep &= known
        if self.min_foreground > 0:
            keep &= np.asarray(info.slice_foreground) >= self.min_foreground
        indices = np.flatnonzero(keep)
        if self.only_with_foreground_label and len(indices):
            wanted = {
                int(value)
                for value in info.class_slices
                if (self.label_map or {}).get(int(value), int(value)) > 0
            }
            table = np.zeros(256, bool)
            table[list(wanted)] = True
            indices = np.array(
                [
                    index
                    for index in indices.tolist()
                    if wanted
                    and table[store.read_label_slice(info.case_id, index)].any()
                ],
                np.int64,
            )
        return indices

    def _check_not_empty(
        self, infos: Sequence[CaseInfo], samples: Sequence[np.ndarray]
    ) -> None:
        if sum(len(indices) for indices in samples):
            return
        if self.labelled and not any(info.labelled for info in infos):
            remedy = (
                'none of them has a label; import the labels, or use labelled=False'
            )
        else:
            remedy = (
                f'relax min_foreground={self.min_foreground}, '
                f'slice_step={self.slice_step} or '
                'only_with_foreground_label='
                f'{self.only_with_foreground_label}'
            )
        self._refuse_empty('slice', f'{len(infos)} case(s)', remedy)

    def __len__(self) -> int:
        """Number of slices."""
        self.full_init()
        return len(self._sample_cases)

    def get_data_info(self, idx: int) -> dict:
        """Describe one slice.

        Args:
            idx: Index, or the EpochIndex of a ResumableSampler.
        """
        self.full_init()
        index = range(len(self._sample_cases))[int(idx)]
        case = int(self._sample_cases[index])
        slice_index = int(self._sample_slices[index])
        case_id = str(self._case_ids[case])
        spacing = self._spacings[case]
        return dict(
            sample_idx=index,
            case_id=case_id,
            patient_id=str(self._patient_ids[case]),
            slice_index=slice_index,
            spacing=None if np.isnan(spacing[0]) else tuple(spacing.tolist()),
            store_root=self.data_root,
            img_path=slice_name(self.data_root, case_id, slice_index),
            intensity=dict(zip(_STATISTICS, self._intensities[case].tolist())),
            protocol=self.protocol,
            split_hash=self.split_hash,
            label_map=self.label_map,
            reduce_zero_label=False,
            seg_fields=[],
            rng=sample_rng(idx if isinstance(idx, EpochIndex) else index, self.seed),
        )

    def _shown(self) -> tuple[list[str], list[str], list[str]]:
        rows = np.unique(self._sample_cases)
        columns = (self._case_ids, self._contents, self._patient_ids)
        ids, contents, patients = (column[rows].tolist() for column in columns)
        return ids, contents, patients

    def patient_names(self) -> set[str]:
        """Names of the patients of all samples."""
        self.full_init()
        return set(self._patient_ids[np.unique(self._sample_cases)].tolist())

    def sample_locations(self) -> tuple[np.ndarray, np.ndarray]:
        """Patient (as a number) and slice index of every sample.

        Shape: two integer arrays ``(N, )``.
        """
        self.full_init()
        patients = np.unique(self._patient_ids, return_inverse=True)[1]
        return patients[self._sample_cases], self._sample_slices


@DATASETS.register_module()
class Abdomen1KSlices(SliceDataset):
    """Abdominal CT of AbdomenCT-1K, four organs."""

    known = 'abdomen1k'
    METAINFO = dict(classes=KNOWN[known].classes)


@DATASETS.register_module()
class BTCVSlices(SliceDataset):
    """Abdominal CT of Beyond the Cranial Vault, thirteen organs."""

    known = 'btcv'
    METAINFO = dict(classes=KNOWN[known].classes)


@DATASETS.register_module()
class PhantomSlices(SliceDataset):
    """Procedural abdominal CT with the organs of BTCV."""

    known = 'phantom'
    METAINFO = dict(classes=KNOWN[known].classes)


@DATASETS.register_module()
class ACDCSlices(SliceDataset):
    """Cardiac cine MR of ACDC, three structures."""

    known = 'acdc'
    METAINFO = dict(classes=KNOWN[known].classes)


@DATASETS.register_module()
class CurvasSlices(SliceDataset):
    """Abdominal CT slices of CURVAS as PNG pairs, three organs."""

    known = 'curvas'
    METAINFO = dict(classes=KNOWN[known].classes)
