"""Batches of labelled slices that bring others without labels along."""

from collections.abc import Sequence
from typing import Any

from mmengine.dataset import pseudo_collate

from medssl_mm.registry import FUNCTIONS


@FUNCTIONS.register_module()
def collate_pairs(batch: Sequence[tuple[dict, dict]]) -> Any:
    """Join pairs of samples into one batch, first all first ones.

    Args:
        batch: Pairs, as :class:`medssl_mm.datasets.slices.SliceDataset` makes
            them with ``unlabelled``.

    Returns:
        What mmengine's ``pseudo_collate`` makes of twice as many samples.

    Raises:
        TypeError: The samples are no pairs.
    """
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in batch):
        raise TypeError(
            'collate_pairs joins pairs of samples, got '
            f'{type(batch[0]).__name__}; set unlabelled=dict() of the data set, or '
            "another collate_fn, such as dict(type='pseudo_collate')."
        )
    first, second = zip(*batch)
    return pseudo_collate([*first, *second])
