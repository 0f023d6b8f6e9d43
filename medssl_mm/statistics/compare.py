"""Means over the seeds of a method, and differences paired by patient.

All evaluations that are put together are scored on the same resamples of the
same patients, a column each; a row is a seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from medssl_mm.errors import UserError

from .interval import Interval
from .resampling import FEW_PATIENTS, intervals, standard_errors

#: How :func:`two_level` makes them, in words.
INTERVALS = (
    'Intervals: 95 %, percentiles of a bootstrap over test patients; of several seeds '
    "over seeds and patients, and of fewer than 15 patients, Student's with the spread "
    'of the bootstrap'
)


@dataclass(frozen=True, eq=False)
class Resampled:
    """A score of one evaluation, and of resamples of its patients.

    Args:
        source (str): File it comes from, for messages.
        values (np.ndarray): Score of all patients, then of every resample;
            NaN where it is not defined.
        content (dict[str, object]): What was scored, such as cases and
            classes; equal for evaluations that may be compared.
        patients (int): Number of patients.

    Shape: values ``(1 + samples,)``.
    """

    source: str
    values: np.ndarray
    content: dict
    patients: int


@dataclass(frozen=True)
class Difference(Interval):
    """A difference of two methods.

    Args:
        p (float): Two-sided, of no difference; NaN: no interval.
        by_seed (tuple[float]): Of every seed that both methods have; () where
            they were not paired by seed.
        seeds (tuple[int]): These seeds.
        all_seeds (bool): Whether neither method has others. Defaults to True.
    """

    p: float = math.nan
    by_seed: tuple[float, ...] = ()
    seeds: tuple[int, ...] = ()
    all_seeds: bool = True


def require_same_content(evaluations: Sequence[Resampled], advice: str) -> None:
    """Raise unless all evaluations scored the same cases and classes.

    Args:
        evaluations: What is to be put together.
        advice: End of the message: what to do.

    Raises:
        UserError: Names two files, and what differs.
    """
    first = evaluations[0]
    for other in evaluations[1:]:
        for what, expected in first.content.items():
            found = other.content.get(what)
            if found == expected:
                continue
            differing = sorted(set(map(str, found or ())) ^ set(map(str, expected)))[:3]
            raise UserError(
                f'{other.source} and {first.source} are not of the same '
                f'{what} (differing: {differing or "the order"}); {advice}'
            )


def mean_over_seeds(
    parts: Sequence[Resampled], bounds: tuple[float, float] | None = None
) -> Interval:
    """Mean over the seeds of a method with its two-level interval.

    Of one seed the interval is over patients; of several over seeds and
    patients, see :func:`two_level`.

    Args:
        parts: Evaluation of every seed, all with one seed of the resampling.
        bounds: Least and greatest possible score, which the ends do not pass.
            Defaults to None.

    Raises:
        UserError: If they are not of the same cases and classes.
    """
    require_same_content(parts, 'seeds of one run must be evaluated on one split')
    curves = np.stack([part.values for part in parts])
    found, _ = two_level(curves, parts[0].patients)
    if bounds is None:
        return found
    low, high = (float(np.clip(end, *bounds)) for end in (found.low, found.high))
    return Interval(found.estimate, low, high, found.units)


def paired_difference(
    first: Sequence[Resampled],
    second: Sequence[Resampled],
    seeds: tuple[Sequence[int], Sequence[int]] | None = None,
) -> Difference:
    """Compare two methods on the same patients.

    Both are evaluated on the same resampled patients, so that the variation
    between patients cancels. The seeds that both methods have are compared one by
    one, and no others: what they share, such as the labels that are drawn, cancels
    too. Methods without a common seed are compared by their means.

    Args:
        first: Evaluations of the first method.
        second: The same of the second; all with one seed of the resampling.
        seeds: Seed of every evaluation of both; () where it is of nothing that
            they share. Defaults to None: not known; methods with as many
            evaluations are then paired in their order.

    Returns:
        Difference: Second minus first.

    Raises:
        UserError: If they are not of the same cases and classes.
    """
    require_same_content([*first, *second], 'compare runs of one protocol')
    arms = [np.stack([part.values for part in arm]) for arm in (first, second)]
    if seeds is None:
        seeds = (range(len(first)), range(len(second)))
        shared = list(seeds[0]) if len(first) == len(second) else []
    else:
        shared = [seed for seed in seeds[1] if seed in seeds[0]]
    if not shared:
        found, p = two_level(arms[1], first[0].patients, minus=arms[0])
        return Difference(*found.numbers, found.units, p)
    paired = [
        arm[[list(known).index(seed) for seed in shared]]
        for arm, known in zip(arms, seeds)
    ]
    curves = paired[1] - paired[0]
    found, p = two_level(curves, first[0].patients)
    by_seed = tuple(float(value) for value in curves[:, 0])
    complete = all(len(known) == len(shared) for known in seeds)
    return Difference(*found.numbers, found.units, p, by_seed, tuple(shared), complete)


def two_level(
    curves: np.ndarray, patients: int, minus: np.ndarray | None = None
) -> tuple[Interval, float]:
    """95 % interval of a mean over seeds, for new seeds and new patients.

    A score varies by seed, by patient and by both together. The variance of the
    mean is the sum of that over seeds (their sample variance, by their number)
    and that over patients (of resamples of the mean, times n / (n - 1)), less
    the part that is in both; the interval is Student's, whose quantile is the
    mean of those of the parts, weighted by their variances (`Cochran 1964
    <https://doi.org/10.2307/2282824>`_). With three seeds a bootstrap of them would
    be much too narrow, and so are effective degrees of freedom where they vary
    more than patients: by chance three seeds often look alike. Of one seed it is
    about patients alone: percentiles, or Student's interval where patients are
    few.

    Args:
        curves: Score of every seed.
        patients: Number of patients.
        minus: Scores of other seeds, whose mean is taken off; a method of one
            seed is taken to vary as much over seeds as the other does. Defaults
            to None.

    Shape: curves and minus ``(seeds, 1 + samples)``, first of all patients, then
        of every resample.

    Returns:
        tuple: Interval, and two-sided p of a mean of 0 (NaN without an
        interval).
    """
    arms = [curves] if minus is None else [curves, -minus]
    mean = np.sum([arm.mean(0) for arm in arms], axis=0)
    drawn = mean[1:][~np.isnan(mean[1:])]
    estimate = float(mean[0])
    seeds = [arm for arm in arms if len(arm) > 1]
    if not len(drawn) or math.isnan(estimate):
        return Interval(estimate, units=patients), math.nan
    if not seeds and patients >= FEW_PATIENTS:
        (found,) = intervals([estimate], drawn[:, None], patients)
        tail = float(min((drawn <= 0).mean(), (drawn >= 0).mean()))
        return found, min(1.0, 2 * max(tail, 1 / len(drawn)))
    if patients < 2:
        return Interval(estimate, units=patients), math.nan
    (error,) = standard_errors(drawn[:, None], patients)
    unbiased = patients / (patients - 1)
    parts = [(float(error) ** 2, patients - 1)]
    # The variance of a mean of seeds, as a share of that of one.
    shares = [1 / len(arm) for arm in seeds]
    if len(seeds) < len(arms):
        shares = [share + 1 for share in shares]
    parts += [
        (arm[:, 0].var(ddof=1) * share, len(arm) - 1)
        for arm, share in zip(seeds, shares)
    ]
    both = sum(
        _interaction(arm) * unbiased * share for arm, share in zip(seeds, shares)
    )
    largest = max(variance for variance, _ in parts)
    variance = max(largest, sum(variance for variance, _ in parts) - both)
    return _student(estimate, variance, parts, patients)


def _interaction(arm: np.ndarray) -> float:
    """Variance over patients of what is of a seed alone, as an average."""
    own = arm[:, 1:] - arm[:, 1:].mean(0)
    own = own[:, ~np.isnan(own).any(0)]
    return float(own.var(1).mean()) * len(arm) / (len(arm) - 1)


def _student(
    estimate: float,
    variance: float,
    parts: Sequence[tuple[float, int]],
    units: int,
) -> tuple[Interval, float]:
    """Student's interval of a sum of variances, each with degrees of freedom."""
    if variance == 0:
        p = 1.0 if estimate == 0 else 0.0
        return Interval(estimate, estimate, estimate, units), p
    weights, degrees = np.array(parts).T
    weights = weights / weights.sum()

    def quantile(p: float) -> float:
        return float(weights @ special.stdtrit(degrees, 1 - p / 2))

    error = math.sqrt(variance)
    half, reached = quantile(0.05) * error, abs(estimate) / error
    least = 1e-12
    if quantile(least) <= reached:
        p = least
    else:
        p = float(optimize.brentq(lambda p: quantile(p) - reached, least, 1.0))
    return Interval(estimate, estimate - half, estimate + half, units), p


def holm(values: Sequence[float]) -> list[float]:
    """Adjust p values of several comparisons.

    The step-down method of `Holm (1979) <https://www.jstor.org/stable/4615733>`_.

    Args:
        values: Of each comparison; NaN stays and does not count.
    """
    adjusted = [math.nan] * len(values)
    order = sorted(
        (index for index, p in enumerate(values) if not math.isnan(p)),
        key=lambda index: values[index],
    )
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, (len(order) - rank) * values[index])
        adjusted[index] = min(1.0, highest)
    return adjusted


def spread(values: Sequence[float] | np.ndarray) -> float:
    """Standard deviation over seeds; NaN for one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float('nan')
