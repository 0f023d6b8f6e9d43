"""Data sets of images with class labels, over an image set.

Without labels they serve mmselfsup (several views of an image), with labels
mmpretrain. The data sets differ by their METAINFO: the class names, which the
image set must agree with.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.logging import print_log

from medssl_mm.datasets.image_sets import CHESTX7, Views, pairs, view_of, views_of
from medssl_mm.datasets.label_rules import ZEROS, LabelRules
from medssl_mm.datasets.sampler import EpochIndex, sample_rng
from medssl_mm.datasets.split_dataset import SplitDataset
from medssl_mm.errors import UserError
from medssl_mm.registry import DATASETS
from medssl_mm.store import open_store
from medssl_mm.store.header import IMAGES
from medssl_mm.store.images import (
    IMAGE_FILE,
    MULTI_LABEL,
    SINGLE_LABEL,
    UNKNOWN,
    ImageStore,
)
from medssl_mm.store.known import KNOWN


@DATASETS.register_module()
class ClassificationImages(SplitDataset):
    """Images of one subset of a split, with their labels.

    Starting reads the table of the image set, no image. The index is kept in
    a few arrays, which worker processes share.

    Each sample is a dict with img (``(H, W)`` or ``(H, W, 3)`` uint8),
    ori_shape, img_shape, sample_idx, image_id, patient_id, img_path (for
    messages: ``<file>#<place>``), store_root, protocol, split_hash, rng,
    gt_label (class index; for several labels the list of the classes present;
    None where nobody labelled the image) and, for several labels, gt_score
    (one 0/1 a class, float32; targets between them where an uncertain finding is
    smoothed).

    Args:
        *args: As :class:`.SplitDataset`; the first is the folder of the image
            set. With ``labelled``, classes without an image are named.
        stratified (bool): Draw the share of the patients in proportion by the
            rarest class of each (of the classes of the image set). Defaults
            to False.
        view (str | None): Only images of this view, of a set that is known to
            have two ('frontal', 'left'). Defaults to None: all.
        uncertain (str): What an uncertain finding counts as: 'zeros', 'ones' or
            'smooth' (see :class:`.LabelRules`). Defaults to 'zeros'.
        findings (Sequence[str] | None): Only these findings, several at once;
            they may be called as in another set. Defaults to None: all classes.
        finding (str | None): Only this one, absent or present. Defaults to None.
        single_label (Sequence[str] | None): Only images with one of these and no
            other finding, which is their class. Defaults to None.
        **kwargs: As :class:`.SplitDataset`.
    """

    _everything = 'all-images'
    _sample_arrays = ('_places', '_labels')

    def __init__(
        self,
        data_root: str,
        *args: Any,
        stratified: bool = False,
        view: str | None = None,
        uncertain: str = ZEROS,
        findings: Sequence[str] | None = None,
        finding: str | None = None,
        single_label: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.stratified = stratified
        self.rules = LabelRules(uncertain, findings, finding, single_label)
        self.store = open_store(data_root, IMAGES)
        self.view = view
        if view is not None and view not in views_of(self.store.name).names:
            raise UserError(
                f'{type(self).__name__}: view must be one of '
                f'{", ".join(views_of(self.store.name).names)}, got {view!r}'
            )
        self.task = self.rules.task(self.store.task)
        self._require_classes(self.store, 'ClassificationImages')
        super().__init__(data_root, *args, **kwargs)
        if self.rules.chosen is not None:
            self._metainfo['classes'] = self._class_names()
        self._metainfo.setdefault('classes', self._class_names())
        self._metainfo.update(dataset_name=self.store.name, task=self.task)

    @classmethod
    def classes_by_settings(
        cls, classes: Sequence[str], settings: dict
    ) -> tuple[str, ...]:
        """Name the classes of the samples without opening the data."""
        rules = LabelRules.of(settings)
        if rules.chosen is not None:
            return rules.classes(classes)
        return super().classes_by_settings(classes, settings)

    @classmethod
    def task_by_settings(cls, task: str | None, settings: dict) -> str | None:
        """Tell the task of the samples without opening the data."""
        return LabelRules.of(settings).task(task) if task else task

    def _class_names(self) -> tuple[str, ...]:
        """Names of the classes that the samples have."""
        return self.rules.classes(self.store.classes)

    def _map_labels(self, labels: np.ndarray) -> np.ndarray:
        """Turn the labels of the image set into those of the samples."""
        return labels

    def full_init(self) -> None:
        """Choose the images; cheap to call again."""
        if self._fully_initialized:
            return
        places = self._choose(self.store)
        total = len(places)
        if self.labelled:
            places = places[self.store.labelled[places]]
        if not len(places):
            remedy = (
                'none of them has a label; import the labels, or use labelled=False'
                if total
                else 'the subset is empty'
            )
            self._refuse_empty('image', str(total), remedy)
        labels, kept = self.rules.apply(self.store.labels[places], self.store.classes)
        if not kept.any():
            self._refuse_empty(
                'image', str(len(places)), 'none has one of these findings alone'
            )
        self._places = places[kept]
        self._labels = self._map_labels(labels[kept])
        if self.labelled:
            self._check_every_class()
        self._finish_index()

    def _choose(self, store: ImageStore) -> np.ndarray:
        chosen = self._chosen_ids(
            store.patient_of, store.classes_of if self.stratified else None
        )
        places: np.ndarray
        if chosen is None:
            places = np.arange(len(store))
        else:
            places = np.array(sorted(map(store.index_of, chosen)), np.int64)
        if self.view is None:
            return places
        views, ids = views_of(store.name), store.image_ids
        seen = ((n, view_of(str(ids[n]), views)) for n in places)
        return np.array([n for n, v in seen if v and v[1] == self.view], np.int64)

    def _check_every_class(self) -> None:
        """Say which classes have no image (or, multi-label, only such)."""
        names = self._class_names()
        counts = self.class_counts()
        missing = [name for name, count in zip(names, counts) if not count]
        everywhere = [
            name
            for name, count in zip(names, counts)
            if self.task == MULTI_LABEL and count == len(self)
        ]
        if not missing and not everywhere:
            return
        where = f'{type(self).__name__} ({self.data_root}, {self._where})'
        remedy = (
            'Take a larger fraction, another fraction_seed, '
            + ('' if self.stratified else 'stratified=True, ')
            + 'or another split.'
        )
        if (
            len(names) - len(missing) < 2
            and self.task == SINGLE_LABEL
            and not self.test_mode
        ):  # the metric says so at test
            raise UserError(
                f'{where}: all {len(self)} images are of one class; '
                f'{", ".join(missing)} has none, so there is nothing to '
                f'learn. {remedy}'
            )
        parts = []
        if missing:
            parts.append(f'no image of {", ".join(missing)}')
        if everywhere:
            parts.append(f'no image without {", ".join(everywhere)}')
        print_log(
            f'{where}: {" and ".join(parts)} among {len(self)}; such a class '
            f'cannot be learnt, nor its AUROC measured. {remedy}',
            logger='current',
            level=logging.WARNING,
        )

    def class_counts(self) -> list[int]:
        """Number of images of every class."""
        labels = self._labels
        if self.task == MULTI_LABEL:
            return (labels == 1).sum(0).tolist()
        known = labels[labels != UNKNOWN]
        return np.bincount(known, minlength=len(self._class_names())).tolist()

    def __len__(self) -> int:
        """Number of images."""
        if not hasattr(self, '_places'):
            self.full_init()
        return len(self._places)

    def get_data_info(self, idx: int) -> dict:
        """Describe one image, without its pixels.

        Args:
            idx: Index, or the EpochIndex of a ResumableSampler.
        """
        self.full_init()
        index = range(len(self._places))[int(idx)]
        place = int(self._places[index])
        label = self._labels[index]
        info = dict(
            sample_idx=index,
            image_id=str(self.store.image_ids[place]),
            patient_id=str(self.store.patient_ids[place]),
            img_path=f'{self.data_root}/{IMAGE_FILE}#{place}',
            store_root=str(self.store.root),
            protocol=self.protocol,
            split_hash=self.split_hash,
            rng=sample_rng(idx if isinstance(idx, EpochIndex) else index, self.seed),
        )
        if (label == UNKNOWN).any():
            info['gt_label'] = None
        elif self.task == MULTI_LABEL:
            info['gt_label'] = np.flatnonzero(label).tolist()
            info['gt_score'] = label.astype(np.float32)
        else:
            info['gt_label'] = int(label)
        if info['gt_label'] is not None and self.store.uncertain:
            target = self.rules.target(
                self.store.labels[place],
                self.store.classes,
                np.random.default_rng((self.seed, place)),
            )
            if target is not None:
                info['gt_score'] = target
        return info

    def prepare_data(self, idx: int) -> dict:
        """Read one image and run the pipeline on it."""
        info = self.get_data_info(idx)
        image = self.store.read(int(self._places[info['sample_idx']]))
        info['img'] = image
        info['ori_shape'] = info['img_shape'] = image.shape[:2]
        return self.pipeline(info)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Classes of one image, as mmengine's balancing wrappers ask."""
        label = self.get_data_info(idx)['gt_label']
        if label is None:
            return []
        return label if isinstance(label, list) else [label]

    def get_gt_labels(self) -> np.ndarray:
        """Labels of all samples.

        Shape: class indices ``(N, )``, or 0/1 ``(N, C)`` for several labels;
        -1 where the label is not known.
        """
        self.full_init()
        return self._labels.astype(np.int64)

    def _shown(self) -> tuple[list[str], list[str], list[str]]:
        places = np.unique(self._places)
        ids = self.store.image_ids[places].tolist()
        patients = self.store.patient_ids[places].tolist()
        return ids, self.store.contents[places].tolist(), patients

    def patient_names(self) -> set[str]:
        """Names of the patients of all samples."""
        self.full_init()
        return set(self.store.patient_ids[self._places].tolist())

    def pairs(
        self, views: str | Views | None = None, same_label: bool = False
    ) -> list[tuple[int, int]]:
        """Pair the samples that show one thing in two views.

        Args:
            views: Name of a set or its views. Defaults to None: of this set.
            same_label: Whether both must have one label. Defaults to False.

        Returns:
            list[tuple[int, int]]: Indices, e.g. of left and right eye.

        Raises:
            UserError: The set is not known to have two views.
        """
        self.full_init()
        return pairs(
            self.store.image_ids[self._places].tolist(),
            self.store.name if views is None else views,
            self.get_gt_labels().tolist() if same_label else None,
        )

    def sample_locations(self) -> tuple[np.ndarray, np.ndarray]:
        """Patient (as a number) of every sample, and zeros.

        With these, neighbour_distance=1 of a ResumableSampler keeps two images
        of one patient out of one batch.

        Shape: two integer arrays ``(N, )``.
        """
        self.full_init()
        patients = np.unique(self.store.patient_ids, return_inverse=True)[1]
        return patients[self._places], np.zeros(len(self), np.int64)


@DATASETS.register_module()
class NIHChestXray14(ClassificationImages):
    """Chest X-rays of NIH ChestX-ray14, fourteen findings at once.

    Args:
        *args: As :class:`ClassificationImages`.
        single_label (bool | Sequence[str] | None): True: one of the seven findings
            of ChestX-7, and nothing else. Or names of findings. Defaults to None:
            all fourteen at once.
        **kwargs: As :class:`ClassificationImages`.
    """

    known = 'nih-cxr14'
    METAINFO = dict(classes=KNOWN[known].classes)

    def __init__(
        self,
        *args: Any,
        single_label: bool | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, single_label=_seven(single_label), **kwargs)

    @classmethod
    def classes_by_settings(
        cls, classes: Sequence[str], settings: dict
    ) -> tuple[str, ...]:
        """Name the classes of the samples without opening the data."""
        return super().classes_by_settings(classes, _with_seven(settings))

    @classmethod
    def task_by_settings(cls, task: str | None, settings: dict) -> str | None:
        """Tell the task of the samples without opening the data."""
        return super().task_by_settings(task, _with_seven(settings))


def _seven(single_label: bool | Sequence[str] | None) -> Sequence[str] | None:
    if isinstance(single_label, bool):
        return CHESTX7 if single_label else None
    return single_label


def _with_seven(settings: dict) -> dict:
    return {**settings, 'single_label': _seven(settings.get('single_label'))}


@DATASETS.register_module()
class CheXpert(ClassificationImages):
    """Chest X-rays of CheXpert, fourteen observations at once.

    ``view='frontal'`` leaves the lateral ones out, ``finding='Pleural Effusion'``
    makes two classes of it, ``uncertain`` says what 'possibly' counts as.
    """

    known = 'chexpert'
    METAINFO = dict(classes=KNOWN[known].classes)


@DATASETS.register_module()
class BreastHistopathologyIDC(ClassificationImages):
    """Patches of breast tissue, with or without ductal carcinoma."""

    known = 'idc'
    METAINFO = dict(classes=KNOWN[known].classes)


@DATASETS.register_module()
class DiabeticRetinopathy(ClassificationImages):
    """Retina photographs of EyePACS, five grades of retinopathy.

    Args:
        binary (str | None): 'referable' joins grades 0 and 1 to class 0, 2
            to 4 to class 1. None keeps the five grades. Defaults to None.
        **kwargs: As :class:`ClassificationImages`.
    """

    known = 'diabetic-retinopathy'
    METAINFO = dict(classes=KNOWN[known].classes)
    _first_referable = 2

    def __init__(self, *args: Any, binary: str | None = None, **kwargs: Any) -> None:
        if binary not in (None, 'referable'):
            raise ValueError(
                'DiabeticRetinopathy: binary must be '
                f"'referable' or None, got {binary!r}."
            )
        self.binary = binary
        super().__init__(*args, **kwargs)
        if binary and self.rules.chosen is not None:
            raise ValueError(
                'DiabeticRetinopathy: binary makes classes of its own; leave '
                'findings, finding and single_label out.'
            )
        if binary:
            self._metainfo['classes'] = self._class_names()

    @classmethod
    def classes_by_settings(
        cls, classes: Sequence[str], settings: dict
    ) -> tuple[str, ...]:
        """Name the classes of the samples without opening the data."""
        if settings.get('binary'):
            return ('not referable', 'referable')
        return super().classes_by_settings(classes, settings)

    def _class_names(self) -> tuple[str, ...]:
        if not self.binary:
            return super()._class_names()
        return self.classes_by_settings(self.store.classes, dict(binary=self.binary))

    def _map_labels(self, labels: np.ndarray) -> np.ndarray:
        if not self.binary:
            return labels
        referable = (labels >= self._first_referable).astype(labels.dtype)
        return np.where(labels == UNKNOWN, labels, referable)
