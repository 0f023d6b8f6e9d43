"""Correlations with intervals."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

# Of so many points all orders are tried: 8! = 40,320.
EXACT_POINTS = 8


@dataclass(frozen=True)
class Correlation:
    """A correlation with its 95 % interval.

    Args:
        kind (str): 'pearson' or 'spearman'.
        r (float): The coefficient; NaN for fewer than three points.
        p (float): Of the hypothesis that there is none.
        low (float): NaN for fewer than four points.
        high (float): As ``low``.
        points (int): Number of pairs.
    """

    kind: str
    r: float
    p: float
    low: float
    high: float
    points: int


def correlation(
    first: Mapping[str, float],
    second: Mapping[str, float],
    kind: Literal['pearson', 'spearman'] = 'pearson',
) -> Correlation:
    """Correlate two numbers of things with names; those that lack one are left out.

    Intervals by Fisher's transform, for Spearman with the variance of `Bonett
    and Wright (2000) <https://doi.org/10.1007/BF02294183>`_. The p-value of Spearman
    is that of all orders up to eight points, of which three in line are 1/3 and not
    0, as the usual approximation by Student's t has it.

    Args:
        first: By name.
        second: By name.
        kind: Defaults to 'pearson'.
    """
    # Slow to import, and some of its parts look for torch.
    from scipy import stats

    names = [
        name
        for name in first
        if np.isfinite(first[name]) and np.isfinite(second.get(name, np.nan))
    ]
    x, y = (np.array([of[name] for name in names]) for of in (first, second))
    none = float('nan')
    if len(names) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(kind, none, none, none, none, len(names))
    found = (stats.pearsonr if kind == 'pearson' else stats.spearmanr)(x, y)
    r, p = float(found.statistic), float(found.pvalue)
    if kind == 'spearman' and len(names) <= EXACT_POINTS:
        p = _exact_p(x, y)
    low = high = none
    if len(names) > 3 and abs(r) < 1:
        variance = (1 if kind == 'pearson' else 1 + r**2 / 2) / (len(names) - 3)
        reach = stats.norm.ppf(0.975) * variance**0.5
        low, high = np.tanh(np.arctanh(r) + np.array([-reach, reach])).tolist()
    return Correlation(kind, r, p, low, high, len(names))


def _exact_p(x: np.ndarray, y: np.ndarray) -> float:
    """Two-sided p-value of Spearman's correlation from all orders of ``x``."""
    from scipy import stats

    ranks = stats.rankdata(y) - (len(y) + 1) / 2
    found = stats.permutation_test(
        (stats.rankdata(x),),
        lambda order, axis: (order * ranks).sum(axis=axis),
        permutation_type='pairings',
        vectorized=True,
        n_resamples=np.inf,
    )
    return float(found.pvalue)
