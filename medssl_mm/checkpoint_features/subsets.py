"""Images of the subsets of a config, and their labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medssl_mm.errors import UserError

SUBSETS = ('train', 'val', 'test')
UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Subset:
    """Images of one subset.

    Args:
        name (str): 'train', 'val' or 'test'.
        dataset (Dataset): Of mmengine's kind, with the test pipeline.
        settings (dict): Config that it was built from.
        image_ids (tuple[str]): Images, in the order of the data set.
        patients (tuple[str]): Patient of each image; the image where the
            data set names no patients.
        has_patients (bool): Whether it does.
        raw_labels (tuple): What the data set says, None where nothing.
    """

    name: str
    dataset: object
    settings: dict
    image_ids: tuple[str, ...]
    patients: tuple[str, ...]
    has_patients: bool
    raw_labels: tuple

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, None where the data set has none."""
        classes = self.dataset.metainfo.get('classes')
        return None if classes is None else tuple(classes)

    @property
    def protocol(self) -> str:
        """Name of the split; empty where the data set has none."""
        return str(self.dataset.metainfo.get('protocol') or '')

    @property
    def split_hash(self) -> str:
        """Hash of the split; empty where the data set has none."""
        return str(self.dataset.metainfo.get('split_hash') or '')


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of the images of a subset whose label is known.

    Args:
        classes (tuple[str]): Names.
        multi_label (bool): Whether an image may have any number of them.
        targets (np.ndarray): Whether the image has the class.
        known (np.ndarray): Rows of the subset that they belong to.

    Shape: targets ``(K, classes)``, bool; known ``(K,)``, integer.
    """

    classes: tuple[str, ...]
    multi_label: bool
    targets: np.ndarray
    known: np.ndarray


def read_labels(subset: Subset) -> Labels:
    """Read the labels of a subset, without its images.

    ``gt_label`` of the data set is a class index (single-label; -1: not
    known) or a list of the classes present (multi-label).

    Args:
        subset (Subset): The subset.

    Raises:
        UserError: When no label is known, or one does not fit the classes.
    """
    known = [
        row
        for row, label in enumerate(subset.raw_labels)
        if label is not None and UNKNOWN not in np.atleast_1d(label)
    ]
    if not known:
        raise UserError(
            f'the {subset.name} subset has no labels '
            f'({len(subset.raw_labels)} images); choose a labelled data set '
            'or split for it'
        )
    labels = [subset.raw_labels[row] for row in known]
    multi_label = np.ndim(labels[0]) > 0
    indices = [np.atleast_1d(np.asarray(label, int)) for label in labels]
    last = max((int(i.max()) for i in indices if len(i)), default=0)
    classes = subset.classes or tuple(str(i) for i in range(last + 1))
    if last >= len(classes):
        raise UserError(
            f'the {subset.name} subset has the label {last}, but only '
            f'{len(classes)} classes: {", ".join(classes)}'
        )
    targets = np.zeros((len(known), len(classes)), bool)
    for row, present in enumerate(indices):
        targets[row, present] = True
    return Labels(classes, multi_label, targets, np.array(known))


def check_no_shared_patients(subsets: Sequence[Subset]) -> None:
    """Refuse subsets with a patient in common.

    Raises:
        UserError: Names the subsets and a patient.
    """
    for index, one in enumerate(subsets):
        for other in subsets[index + 1 :]:
            shared = set(one.patients) & set(other.patients)
            if shared:
                raise UserError(
                    f'{len(shared)} patient(s) are in the {one.name} and in '
                    f'the {other.name} subset, e.g. {min(shared)}; split by '
                    'patient'
                )
