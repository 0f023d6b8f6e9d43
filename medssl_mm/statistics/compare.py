"""Means over the seeds of a method, and differences paired by patient.

All evaluations that are put together are scored on the same resamples of the
same patients, a column each. What else may vary from run to run, such as the
seeds, is resampled along the other axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medssl_mm.errors import UserError

from .interval import Interval
from .resampling import intervals


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


def _curve(parts: Sequence[Resampled]) -> np.ndarray:
    """Mean over evaluations, of all patients and of every resample."""
    return np.mean([part.values for part in parts], axis=0)


def mean_over_seeds(parts: Sequence[Resampled]) -> Interval:
    """Mean over the seeds of a method with its interval over patients.

    Every resample of patients is evaluated for all seeds and averaged, so the
    interval is about patients; the spread over seeds is given beside it.

    Args:
        parts: Evaluation of every seed, all with one seed of the resampling.

    Raises:
        UserError: If they are not of the same cases and classes.
    """
    require_same_content(parts, 'seeds of one run must be evaluated on one split')
    return _with_ends(_curve(parts), parts[0].patients)


def paired_difference(
    first: Sequence[Resampled], second: Sequence[Resampled]
) -> Interval:
    """Compare two methods on the same patients by a paired bootstrap.

    Both are evaluated on the same resampled patients, so that the variation
    between patients cancels. Several evaluations of one method (seeds) are
    averaged within every resample.

    Args:
        first: Evaluations of the first method.
        second: The same of the second; all with one seed of the resampling.

    Returns:
        Interval: Second minus first.

    Raises:
        UserError: If they are not of the same cases and classes.
    """
    require_same_content([*first, *second], 'compare runs of one protocol')
    return _with_ends(_curve(second) - _curve(first), first[0].patients)


def _with_ends(curve: np.ndarray, patients: int) -> Interval:
    (found,) = intervals(curve[:1], curve[1:, None], patients)
    return found


def spread(values: Sequence[float] | np.ndarray) -> float:
    """Standard deviation over seeds; NaN for one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float('nan')
