"""Intervals from resampling patients with all their cases."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from .interval import Interval

# Below this number of patients percentiles of resamples are too narrow:
# Student's interval takes their place.
FEW_PATIENTS = 15


def few_patients(count: int, what: str = 'patient') -> list[str]:
    """Return the note on intervals over few patients, if it is called for.

    Args:
        count: Number of patients.
        what: What they are.
    """
    if count >= FEW_PATIENTS:
        return []
    return [
        f"only {count} {what}{'s' * (count != 1)}: Student's intervals, which "
        'expect a symmetrical spread; look at the single cases'
    ]


def draw_patients(
    patients: Sequence[str], samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw how often each patient is taken when patients are resampled.

    Shape: returns ``(samples, patients)``, integer, and the column of every
        case ``(cases,)``.
    """
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=samples
    )
    return draws, index


def patient_weights(patients: Sequence[str], samples: int, seed: int) -> np.ndarray:
    """Draw how often each case is taken when patients are resampled.

    All cases of a patient are taken together.

    Shape: returns ``(samples, cases)``, integer.
    """
    draws, index = draw_patients(patients, samples, seed)
    return draws[:, index]


def class_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means over cases, NaN left out.

    Shape: values ``(cases, classes)``; weights ``(samples, cases)``. Returns
        ``(samples, classes)``, NaN where no case counts.
    """
    counted = ~np.isnan(values)
    total = weights @ np.where(counted, values, 0.0)
    number = weights @ counted.astype(float)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def mean_of_classes(means: np.ndarray) -> np.ndarray:
    """Mean over the last axis, NaN left out; NaN where nothing is left."""
    counted = ~np.isnan(means)
    number = counted.sum(-1)
    total = np.where(counted, means, 0.0).sum(-1)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def bootstrap_means(
    values: np.ndarray,
    patients: Sequence[str],
    samples: int = 2000,
    seed: int = 0,
    bounds: tuple[float, float] | None = None,
) -> tuple[list[Interval], Interval]:
    """Means per class and over classes with 95 % patient-level intervals.

    Args:
        values: One score per case and class; NaN: not counted.
        patients: Patient of every case.
        samples: Resamples; 0 gives no interval.
        seed: Seed of the resampling.
        bounds: Least and greatest possible score. Defaults to None.

    Shape: values ``(cases, classes)``.

    Returns:
        tuple[list[Interval], Interval]: Per class, and the mean of classes.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or len(values) != len(patients):
        raise ValueError(
            'values must be (cases, classes) with one patient per case, got '
            f'{values.shape} and {len(patients)} patients'
        )
    means = class_means(values, np.ones((1, len(values))))
    drawn = None
    if samples and len(values):
        drawn = class_means(values, patient_weights(patients, samples, seed))
        drawn = np.column_stack([drawn, mean_of_classes(drawn)])
    counted = ~np.isnan(values)
    *per_class, overall = intervals(
        [*means[0], *mean_of_classes(means)],
        drawn,
        [*counted.sum(0), counted.any(1).sum()],
        len(set(patients)),
        bounds,
    )
    return per_class, overall


def intervals(
    estimates: Sequence[float] | np.ndarray,
    drawn: np.ndarray | None = None,
    units: ArrayLike = 0,
    patients: int | None = None,
    bounds: tuple[float, float] | None = None,
) -> list[Interval]:
    """Make intervals of estimates and their resamples.

    Percentiles of the resamples, or, of fewer than :data:`FEW_PATIENTS`
    patients, Student's interval with the spread of the resamples: percentiles
    of five patients hold the truth in 80 instead of 95 % of all cases. One
    patient gives none.

    Args:
        estimates: Over all patients.
        drawn: Of every resample. Defaults to None, which gives no ends.
        units: Cases or images that count.
        patients: How many were resampled. Defaults to None: enough.
        bounds: Least and greatest possible value, which the ends do not pass.
            Defaults to None.

    Shape: estimates ``(values,)``, drawn ``(samples, values)``.
    """
    estimates = np.asarray(estimates, float)
    low: np.ndarray = np.full(len(estimates), np.nan)
    high: np.ndarray = low
    if drawn is not None and len(drawn):
        if patients is None or patients >= FEW_PATIENTS:
            low, high = percentiles(drawn)
        elif patients > 1:
            half = special.stdtrit(patients - 1, 0.975) * standard_errors(
                drawn, patients
            )
            low, high = estimates - half, estimates + half
    if bounds is not None:
        low, high = np.clip(low, *bounds), np.clip(high, *bounds)
    counts = np.broadcast_to(units, len(estimates))
    return [
        Interval(float(middle), float(start), float(end), int(count))
        for middle, start, end, count in zip(estimates, low, high, counts)
    ]


def standard_errors(drawn: np.ndarray, patients: int) -> np.ndarray:
    """Spread of resamples, without the bias of few patients; NaN left out.

    Resampling n patients gives (n - 1) / n of the variance of a mean.

    Shape: drawn ``(samples, values)``; returns ``(values,)``.
    """
    empty = np.isnan(drawn).all(0)
    spread = np.nanstd(np.where(empty, 0.0, drawn), axis=0)
    return np.where(empty, np.nan, spread) * np.sqrt(patients / (patients - 1))


def percentiles(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile intervals of resampled values, NaN left out.

    Shape: drawn ``(samples, values)``; returns low and high ends
        ``(values,)``, NaN where nothing was drawn.
    """
    # A column without any value stays NaN, without numpy's warning.
    empty = np.isnan(drawn).all(0)
    filled = np.where(empty, 0.0, drawn)
    low, high = np.nanpercentile(filled, [2.5, 97.5], axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)
