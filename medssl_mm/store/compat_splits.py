"""Splits that repeat a published comparison, image by image.

Patients, and both eyes of one, may be on both sides: scores are comparable with
the published ones, and too high for new patients.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

SHUFFLE_SEED, VAL_SEED = 42, 0
POOL_SIZE = 10001  # images that few-shot episodes draw from at most
DESCRIPTION = (
    'Images parted regardless of patients, as in a published comparison; strict '
    'results need the split by patient.'
)


def shuffled(names: Sequence[str]) -> list[str]:
    """Shuffle as pandas does by ``sample(frac=1, random_state=42)``."""
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(names))
    return [names[place] for place in order]


def draw_validation(train: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take a fifth of the shuffled training images for validation.

    Returns:
        tuple: what is left to train on; validation.
    """
    order = np.random.RandomState(VAL_SEED).permutation(len(train))
    count = len(train) // 5
    return [train[n] for n in order[count:]], [train[n] for n in order[:count]]


def compat_lists(
    dataset: str,
    names: Sequence[str],
    train: float | int,
    test: Sequence[str] | None = None,
    kept: Collection[str] | None = None,
) -> dict[str, dict[str, list[str]]]:
    """The splits '<dataset>-compat' and '<dataset>-compat-pool'.

    The pool, called its test subset, is what few-shot episodes draw from: the
    first 10001 of training and test images.

    Args:
        dataset (str): Name of the set.
        names (Sequence[str]): Images in the order of their table.
        train (float | int): Share (rounded down) or number of the shuffled
            images that are trained on.
        test (Sequence[str], optional): Test images of a table of their own; all
            of ``names`` are then trained on. Defaults to None.
        kept (Collection[str], optional): Images that count, chosen after the
            shuffle. Defaults to None: all.

    Returns:
        dict: Protocol to subset to images; empty where the images are too few.
    """
    order = shuffled(names)
    if test is None:
        count = int(train * len(order)) if isinstance(train, float) else train
        order, rest = order[:count], order[count:]
    else:
        rest = shuffled(test)
    if kept is not None:
        order = [name for name in order if name in kept]
        rest = [name for name in rest if name in kept]
    left, val = draw_validation(order)
    if not (val and rest):
        return {}
    return {
        f'{dataset}-compat': dict(pretrain=order, train=left, val=val, test=rest),
        f'{dataset}-compat-pool': dict(test=[*order, *rest][:POOL_SIZE]),
    }


def official_lists(
    dataset: str, train: Sequence[str], test: Sequence[str]
) -> dict[str, dict[str, list[str]]]:
    """The split '<dataset>-compat' of a set whose test images are published.

    Nothing is shuffled before validation is drawn, and episodes draw from all
    images, so there is no pool.

    Args:
        dataset (str): Name of the set.
        train (Sequence[str]): All other images, whose names sort in the order of
            the published files.
        test (Sequence[str]): The published test images.

    Returns:
        dict: Protocol to subset to images; empty where the images are too few.
    """
    order = sorted(train)
    left, val = draw_validation(order)
    if not (val and test):
        return {}
    return {
        f'{dataset}-compat': dict(pretrain=order, train=left, val=val, test=[*test])
    }
