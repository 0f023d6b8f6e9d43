"""The area under the ROC curve, of many weightings of the samples at once."""

import numpy as np


def weighted_auroc(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    r"""Area under the ROC curve of weighted samples, ties counting half.

    .. math:: \frac{\sum_{i \in P, j \in N} w_i w_j ([s_i > s_j]
        + \frac{1}{2} [s_i = s_j])}{\sum_{i \in P} w_i \sum_{j \in N} w_j}

    Args:
        scores: Larger for more likely positive.
        positive: Which samples are.
        weights: Several weightings, 0 or more.

    Shape: scores, positive ``(N,)``; weights ``(S, N)``. Returns ``(S,)``,
        NaN where the positives or the negatives weigh nothing.
    """
    order = np.argsort(scores, kind='stable')
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    ordered = np.asarray(weights, dtype=float)[:, order]
    true = np.where(positive[order].astype(bool), ordered, 0.0)
    false = ordered - true
    if len(starts) < len(ranked):
        true = np.add.reduceat(true, starts, axis=1)
        false = np.add.reduceat(false, starts, axis=1)
    below = np.cumsum(false, axis=1) - false / 2
    pairs = true.sum(1) * false.sum(1)
    return np.divide(
        (true * below).sum(1), pairs, out=np.full(len(ordered), np.nan), where=pairs > 0
    )
