"""Labels of the images of a data set, whatever form it gives them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medssl_mm.errors import UserError

UNKNOWN = -1


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


def is_known(label: Any) -> bool:
    """Whether a ``gt_label`` says anything: not None, and no -1 in it."""
    return label is not None and UNKNOWN not in np.atleast_1d(label)


def labels_of(
    raw_labels: Sequence[Any], classes: Sequence[str] | None, name: str
) -> Labels:
    """Read the labels of a subset, without its images.

    Args:
        raw_labels (Sequence): ``gt_label`` of the data set: a class index
            (single-label; -1: not known), a list of the classes present
            (multi-label), or None: not known.
        classes (Sequence[str] | None): Names; None: numbers.
        name (str): Of the subset, for messages.

    Raises:
        UserError: When no label is known, or one does not fit the classes.
    """
    known = [row for row, label in enumerate(raw_labels) if is_known(label)]
    if not known:
        raise UserError(
            f'the {name} subset has no labels '
            f'({len(raw_labels)} images); choose a labelled data set '
            'or split for it'
        )
    labels = [raw_labels[row] for row in known]
    multi_label = np.ndim(labels[0]) > 0
    indices = [np.atleast_1d(np.asarray(label, int)) for label in labels]
    last = max((int(i.max()) for i in indices if len(i)), default=0)
    names = tuple(classes or (str(i) for i in range(last + 1)))
    if last >= len(names):
        raise UserError(
            f'the {name} subset has the label {last}, but only '
            f'{len(names)} classes: {", ".join(names)}'
        )
    targets = np.zeros((len(known), len(names)), bool)
    for row, present in enumerate(indices):
        targets[row, present] = True
    return Labels(names, multi_label, targets, np.array(known))
