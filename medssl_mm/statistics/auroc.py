"""The area under the ROC curve, of many weightings of the samples at once."""

import numpy as np


def weighted_auroc(
    scores: np.ndarray,
    positive: np.ndarray,
    weights: np.ndarray,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    r"""Area under the ROC curve of weighted samples, ties counting half.

    .. math:: \frac{\sum_{i \in P, j \in N} w_i w_j ([s_i > s_j]
        + \frac{1}{2} [s_i = s_j])}{\sum_{i \in P} w_i \sum_{j \in N} w_j}

    Args:
        scores: Larger for more likely positive.
        positive: Which samples are.
        weights: Several weightings, 0 or more.
        groups: Numbers; both sums are of pairs within one group. Defaults to
            None: of all pairs.

    Shape: scores, positive, groups ``(N,)``; weights ``(S, N)``. Returns ``(S,)``,
        NaN where the pairs weigh nothing.
    """
    weights = np.asarray(weights, dtype=float)
    positive = np.asarray(positive, dtype=bool)
    parts = [np.arange(len(scores))]
    if groups is not None:
        parts = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    right, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for part in parts:
        of_part = _ordered_pairs(scores[part], positive[part], weights[:, part])
        right, pairs = right + of_part[0], pairs + of_part[1]
    return np.divide(right, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def _ordered_pairs(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the pairs in the right order, and of all."""
    order = np.argsort(scores, kind='stable')
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    ordered = weights[:, order]
    true = np.where(positive[order], ordered, 0.0)
    false = ordered - true
    if len(starts) < len(ranked):
        true = np.add.reduceat(true, starts, axis=1)
        false = np.add.reduceat(false, starts, axis=1)
    below = np.cumsum(false, axis=1) - false / 2
    return (true * below).sum(1), true.sum(1) * false.sum(1)
