"""Which images an encoder takes for similar: neighbours in feature space."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medssl_mm.errors import UserError
from medssl_mm.functional.nearest_neighbours import cosine_neighbours

POLICY = (
    'Nearest neighbours by the cosine of pooled features. The share of right ones is '
    'that of neighbours of the class of the query, over all queries; chance is what '
    'images drawn at random would give.'
)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest images of every query in one encoder.

    Args:
        encoder (str): Name.
        rows (np.ndarray): Rows of the bank, the nearest first.
        similarities (np.ndarray): Cosines.
        right (np.ndarray): Whether a neighbour is of the class of the query.
        chance (float): Share of right ones among all images allowed.
        number (int): Which of the encoders of that name. Defaults to 0.

    Shape: arrays ``(queries, k)``.
    """

    encoder: str
    rows: np.ndarray
    similarities: np.ndarray
    right: np.ndarray
    chance: float
    number: int = 0


def nearest_images(
    encoder: str,
    features: np.ndarray,
    targets: np.ndarray,
    patients: Sequence[str],
    queries: np.ndarray,
    bank: np.ndarray,
    k: int = 5,
    number: int = 0,
) -> Neighbours:
    """Find the nearest images of every query, none of its own patient.

    Args:
        encoder (str): Name.
        features (np.ndarray): Of all images.
        targets (np.ndarray): Whether an image has a class. A neighbour is right
            when it shares a class with the query, or both have none.
        patients (Sequence[str]): Of every image; the image itself where they are
            not known.
        queries (np.ndarray): Rows.
        bank (np.ndarray): Rows of the images that may be neighbours.
        k (int): Neighbours. Defaults to 5.
        number (int): See :class:`Neighbours`.

    Shape: features ``(N, D)``, targets ``(N, C)``, queries ``(Q,)``, bank
        ``(B,)``.

    Raises:
        UserError: A query has fewer than k images of others.
    """
    rows = torch.from_numpy(np.ascontiguousarray(features))
    owners: np.ndarray = np.unique(np.asarray(patients), return_inverse=True)[1]
    own: np.ndarray = np.bincount(owners[bank], minlength=owners.max() + 1)[
        owners[queries]
    ]
    if len(bank) - own.max() < k:
        raise UserError(
            f'a query has {len(bank) - own.max()} images of other patients, {k} '
            'neighbours were asked for; lower --neighbours or add images'
        )
    # As many more as might be of the patient.
    near, places = cosine_neighbours(rows[queries], rows[bank], k + int(own.max()))
    names = bank[places.numpy()]
    others = owners[names] != owners[queries][:, None]
    # The first k that are allowed, in their order.
    kept = np.argsort(~others, axis=1, kind='stable')[:, :k]
    found = np.take_along_axis(names, kept, axis=1)
    chances = [
        _share_a_class(targets[[query]], targets[bank[owners[bank] != owners[query]]])
        for query in queries
    ]
    return Neighbours(
        encoder,
        found,
        np.take_along_axis(near.numpy(), kept, axis=1),
        _share_a_class(targets[queries][:, None], targets[found]),
        float(np.mean([share.mean() for share in chances])),
        number,
    )


def _share_a_class(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Shape: ``(..., C)`` each -> ``(...)``."""
    one, other = one > 0, other > 0
    return np.asarray((one & other).any(-1) | ~(one | other).any(-1))


def choose_queries(
    targets: np.ndarray, patients: Sequence[str], per_class: int, seed: int = 0
) -> list[int]:
    """Draw some images of every class, of different patients, to be shown.

    Args:
        targets (np.ndarray): Whether an image has a class.
        patients (Sequence[str]): Of every image.
        per_class (int): Images of each class, as far as there are.
        seed (int): Defaults to 0.

    Shape: targets ``(N, C)``.

    Returns:
        list[int]: Rows, class by class; those without any class last.
    """
    targets = np.asarray(targets) > 0
    order = np.random.default_rng(seed).permutation(len(targets))
    chosen: list[int] = []
    for members in [*targets.T, ~targets.any(1)]:
        seen: set[str] = set()
        for row in order[members[order]]:
            fresh = patients[row] not in seen and row not in chosen
            if fresh and len(seen) < per_class:
                seen.add(patients[row])
                chosen.append(int(row))
    return chosen
