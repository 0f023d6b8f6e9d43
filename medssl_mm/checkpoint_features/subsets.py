"""Images of the subsets of a config, and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medssl_mm.errors import UserError
from medssl_mm.statistics.labels import Labels, labels_of

if TYPE_CHECKING:
    from .images import ImageSubsets

SUBSETS = ('train', 'val', 'test')
#: All labelled images of an image set, whatever their subset.
ALL = 'all'


@dataclass(frozen=True, eq=False)
class Subset:
    """Images of one subset.

    Args:
        name (str): 'train', 'val', 'test' or 'all'.
        dataset (Dataset): Of mmengine's kind, with the test pipeline.
        settings (dict): Config that it was built from.
        image_ids (tuple[str]): Images, in the order of the data set.
        patients (tuple[str]): Patient of each image; the image where the
            data set names no patients.
        has_patients (bool): Whether it does.
        raw_labels (tuple): What the data set says, None where nothing.
    """

    name: str
    dataset: Any
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
    def by_image(self) -> bool:
        """Whether the split parts the images of a patient, as some published do."""
        return self.dataset.metainfo.get('split_by') == 'image'

    @property
    def split_hash(self) -> str:
        """Hash of the split; empty where the data set has none."""
        return str(self.dataset.metainfo.get('split_hash') or '')


def read_labels(subset: Subset) -> Labels:
    """Read the labels of a subset, without its images.

    ``gt_label`` of the data set is a class index (single-label; -1: not
    known) or a list of the classes present (multi-label).

    Args:
        subset (Subset): The subset.

    Raises:
        UserError: When no label is known, or one does not fit the classes.
    """
    return labels_of(subset.raw_labels, subset.classes, subset.name)


def check_no_shared_patients(subsets: Sequence[Subset]) -> None:
    """Refuse subsets with a patient in common, unless their split is by image.

    Raises:
        UserError: Names the subsets and a patient.
    """
    for index, one in enumerate(subsets):
        for other in subsets[index + 1 :]:
            shared = set(one.patients) & set(other.patients)
            if shared and not (one.by_image and other.by_image):
                raise UserError(
                    f'{len(shared)} patient(s) are in the {one.name} and in '
                    f'the {other.name} subset, e.g. {min(shared)}; split by '
                    'patient'
                )


def open_labelled(
    images: ImageSubsets, names: Sequence[str]
) -> tuple[dict[str, Subset], dict[str, Labels]]:
    """Open subsets and read their labels; a note says how many are not known.

    Args:
        images (ImageSubsets): The data sets.
        names (Sequence[str]): Of the subsets.

    Raises:
        UserError: See :func:`read_labels` and :func:`check_no_shared_patients`.
    """
    subsets = {name: images.subset(name) for name in names}
    check_no_shared_patients(list(subsets.values()))
    labels = {name: read_labels(subset) for name, subset in subsets.items()}
    for name, subset in subsets.items():
        unknown = len(subset.image_ids) - len(labels[name].known)
        if unknown:
            images.note(
                f'{unknown} of {len(subset.image_ids)} {name} images '
                'left out: their label is not known'
            )
    return subsets, labels
