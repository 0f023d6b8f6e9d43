"""The labelled images of a probe: what they are, and batches of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medssl_mm import loaders
from medssl_mm.errors import UserError
from medssl_mm.loaders import RowsAndImages, keep_apart
from medssl_mm.registry import DATASETS
from medssl_mm.statistics.labels import Labels, is_known, labels_of
from medssl_mm.store.known import picture_source

#: Name of a data set ('': it has none) to the names of its patients.
Patients = Mapping[str, Set[str]]


@dataclass(frozen=True, eq=False)
class ProbeImages:
    """One of the data sets of a probe.

    Args:
        setting (str): Argument of the hook that names it, for messages.
        dataset (Dataset): Of mmengine's kind.
        labels (Labels): Of all images, in the order of the data set.
        patients (Patients): Who is shown.
    """

    setting: str
    dataset: Dataset
    labels: Labels
    patients: Patients

    def __len__(self) -> int:
        return len(self.labels.targets)

    def name_of(self, row: int) -> str:
        """Name an image for messages."""
        info = self.dataset.get_data_info(row)  # type: ignore[attr-defined]
        return str(info.get('img_path') or info.get('image_id') or f'number {row}')


def open_images(settings: Mapping, setting: str) -> ProbeImages:
    """Build a data set and read its labels, no image.

    Args:
        settings (Mapping): Config of the data set.
        setting (str): Argument of the hook that names it, for messages.

    Raises:
        UserError: When it is empty, or an image has no label.
    """
    dataset = DATASETS.build(copy.deepcopy(dict(settings)))
    if not hasattr(dataset, 'get_data_info'):
        raise UserError(
            f'{setting} is a {type(dataset).__name__}, which tells no labels without '
            'loading images; take a data set of classification images, such as '
            'medssl_mm.ClassificationImages'
        )
    raw, first_unknown = [], ''
    for row in range(len(dataset)):
        info = dataset.get_data_info(row)
        raw.append(info.get('gt_label'))
        if not first_unknown and not is_known(raw[-1]):
            first_unknown = str(info.get('img_path') or f'number {row}')
    if not raw:
        raise UserError(f'{setting} has no images')
    if first_unknown:
        number = sum(not is_known(label) for label in raw)
        raise UserError(
            f'{number} of the {len(raw)} images of {setting} have no label, the first '
            f'is {first_unknown}; a probe needs labels: set labelled=True of the data '
            'set, which leaves such images out, or take another subset'
        )
    labels = labels_of(raw, dataset.metainfo.get('classes'), setting)
    return ProbeImages(setting, dataset, labels, patients_in(dataset))


def patients_in(dataset: object) -> dict[str, set[str]]:
    """Patients of a data set, of any kind; empty where it names none.

    Returns:
        dict: Name of the data set ('': it has none) to those of its patients; one
        made of several has several.
    """
    found: dict[str, set[str]] = {}
    for part in _parts_of(dataset):
        if names := _names_in(part):
            facts = getattr(part, 'metainfo', None) or {}
            found.setdefault(str(facts.get('dataset_name', '')), set()).update(names)
    return found


def _parts_of(dataset: Any) -> list[Any]:
    """The data sets that one is made of, which it is itself where it is none."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if hasattr(dataset, 'patient_names') or inner[0] is None:
        return [dataset]
    return [part for one in inner for part in _parts_of(one)]


def _names_in(dataset: Any) -> set[str]:
    if hasattr(dataset, 'patient_names'):
        return dataset.patient_names()
    if not hasattr(dataset, 'get_data_info'):
        return set()
    names: set[str] = set()
    for row in range(len(dataset)):
        name = dataset.get_data_info(row).get('patient_id')
        if name is None:
            break  # so will be the others, which may be many
        names.add(str(name))
    return names


def shared_patients(one: Patients, other: Patients) -> set[str]:
    """Names of patients in the one who are, or may be, patients in the other.

    Names in two published sets are compared only if the pictures of both have one
    source, for 'train-00000' is another in every set. Sets of one's own
    (``image-folder``, ``image-table``, ...) may show anybody.
    """
    shared = set[str]()
    for name, patients in one.items():
        for further, known in other.items():
            sources = {picture_source(name), picture_source(further)}
            if None in sources or len(sources) == 1:
                shared |= patients & known
    return shared


def incomparable_sets(one: Patients, other: Patients) -> list[tuple[str, str]]:
    """Pairs of published sets with pictures of one source, but names of two kinds.

    Of two kinds are names that all differ in length, as RSNA's and NIH's do.
    """
    return [
        (name, further)
        for name, patients in one.items()
        for further, known in other.items()
        if name != further
        and picture_source(name) == picture_source(further) is not None
        and not set(map(len, patients)) & set(map(len, known))
    ]


def load_batches(
    images: ProbeImages,
    batches: Iterable[Sequence[int]],
    num_workers: int,
    label: str,
    owner: str,
    timeout: float,
    seed: int = 0,
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Load images, the first view of each, in given batches.

    Args:
        images (ProbeImages): Where from.
        batches (Iterable[Sequence[int]]): Rows of each batch.
        num_workers (int): Processes that load.
        label (str): Name of the loader in messages.
        owner (str): The hook that has num_workers among its arguments.
        timeout (float): Seconds a batch may take.
        seed (int): Of the workers' generators. Defaults to 0.

    Yields:
        tuple[list[int], list[Tensor]]: Rows, and ``(C, H, W)`` images.
    """
    loader = DataLoader(
        RowsAndImages(images.dataset),
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=keep_apart,
        # Its own, for otherwise the global one would be drawn from.
        generator=torch.Generator().manual_seed(seed),
        **loaders.worker_options(num_workers),
    )
    yield from loaders.watch(loader, label, timeout, owner)
