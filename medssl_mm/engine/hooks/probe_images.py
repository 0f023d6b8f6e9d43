"""The labelled images of a probe: what they are, and batches of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medssl_mm import loaders
from medssl_mm.errors import UserError
from medssl_mm.loaders import RowsAndImages, keep_apart
from medssl_mm.registry import DATASETS
from medssl_mm.statistics.labels import Labels, is_known, labels_of


@dataclass(frozen=True, eq=False)
class ProbeImages:
    """One of the data sets of a probe.

    Args:
        setting (str): Argument of the hook that names it, for messages.
        dataset (Dataset): Of mmengine's kind.
        labels (Labels): Of all images, in the order of the data set.
        patients (frozenset[str]): Names; empty where it names none.
    """

    setting: str
    dataset: Dataset
    labels: Labels
    patients: frozenset[str]

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
    raw, patients, first_unknown = [], set(), ''
    for row in range(len(dataset)):
        info = dataset.get_data_info(row)
        raw.append(info.get('gt_label'))
        if info.get('patient_id') is not None:
            patients.add(str(info['patient_id']))
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
    return ProbeImages(setting, dataset, labels, frozenset(patients))


def patients_in(dataset: object) -> set[str]:
    """Patients of a data set, of any kind; empty where it names none."""
    if hasattr(dataset, 'patient_names'):
        return dataset.patient_names()
    for parts in (
        getattr(dataset, 'datasets', None),
        [getattr(dataset, 'dataset', None)],
    ):
        if parts and parts[0] is not None:
            return set().union(*map(patients_in, parts))
    if not hasattr(dataset, 'get_data_info'):
        return set()
    names: set[str] = set()
    for row in range(len(dataset)):  # type: ignore[arg-type]
        name = dataset.get_data_info(row).get('patient_id')
        if name is None:
            break  # so will be the others, which may be many
        names.add(str(name))
    return names


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
