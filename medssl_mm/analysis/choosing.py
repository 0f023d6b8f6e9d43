"""Choosing a checkpoint without labels: what measures say, and what it costs.

A measure that needs no labels is useful if, within one pretraining, it orders the
checkpoints as their scores do, or at least finds a good one. Both are judged beside
the plainest choice, the last checkpoint: the measure ``epoch``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from medssl_mm.statistics import Interval
from medssl_mm.statistics.correlation import Correlation, correlation

#: The plainest choice: the more epochs, the better.
EPOCH = 'epoch'


@dataclass(frozen=True)
class MeasuredCheckpoint:
    """What is known of one checkpoint without labels.

    Args:
        run (str): Name of the pretraining.
        checkpoint (str): Name of the file without its ending.
        epoch (int): Epochs done.
        measures (dict[str, float]): By name; NaN: not defined.
    """

    run: str
    checkpoint: str
    epoch: int
    measures: dict[str, float]


@dataclass(frozen=True)
class Agreement:
    """How one measure orders the checkpoints of one pretraining.

    Args:
        run (str): Name of the pretraining.
        measure (str): Name of the measure.
        spearman (Correlation): Of the measure, better ones first, with the score.
        chosen (str): The checkpoint that the measure prefers.
        score (float): Its score.
        regret (float): What the best checkpoint has more.
        chance (float): What it has more than the mean of all, the regret of a
            choice by chance.
    """

    run: str
    measure: str
    spearman: Correlation
    chosen: str
    score: float
    regret: float
    chance: float


def quality(name: str, value: float) -> float:
    """Turn a measure so that more is better.

    Losses are better when smaller; alpha-ReQ is best at 1 (`Assessing
    Representation Quality in Self-Supervised Learning by measuring eigenspectrum
    decay <https://openreview.net/forum?id=ii9X4vtZGTZ>`_); of all others more is
    better.

    Args:
        name: Of the measure, perhaps with a place in brackets.
        value: What was measured.
    """
    if name.startswith('alpha_req'):
        return -abs(value - 1)
    return -value if name.split(' ')[0].startswith('loss') else value


def mean_correlation(found: Sequence[float]) -> Interval:
    """Mean over pretrainings with a 95 % interval by Student's t.

    Args:
        found: A correlation of each; those that are not defined do not count.
    """
    values = np.asarray([value for value in found if not math.isnan(value)])
    if not len(values):
        return Interval()
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, units=len(values))
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    ends = np.clip([mean - half, mean + half], -1, 1)
    return Interval(mean, float(ends[0]), float(ends[1]), len(values))


def agreements(
    checkpoints: Sequence[MeasuredCheckpoint], scores: Mapping[tuple[str, str], float]
) -> list[Agreement]:
    """Compare measures with scores, within each pretraining.

    Args:
        checkpoints: Of one or several pretrainings.
        scores: By run and checkpoint; more is better. Checkpoints without a score
            are left out.

    Returns:
        list[Agreement]: One per run and measure, the measure ``epoch`` among them;
        where it is not defined at a checkpoint, that one is left out.
    """
    found = []
    for run, own in _by_run(checkpoints).items():
        own = [one for one in own if (run, one.checkpoint) in scores]
        marks = {one.checkpoint: scores[run, one.checkpoint] for one in own}
        for name in measures_of(own):
            values = _qualities(own, name)
            if not values:
                continue
            chosen, most = _best(values), max(marks.values())
            found.append(
                Agreement(
                    run=run,
                    measure=name,
                    spearman=correlation(values, marks, 'spearman'),
                    chosen=chosen,
                    score=marks[chosen],
                    regret=most - marks[chosen],
                    chance=most - float(np.mean(list(marks.values()))),
                )
            )
    return found


def choices(checkpoints: Sequence[MeasuredCheckpoint]) -> dict[tuple[str, str], str]:
    """The checkpoint that each measure prefers, by run and measure."""
    return {
        (run, name): _best(values)
        for run, own in _by_run(checkpoints).items()
        for name in measures_of(own)
        if (values := _qualities(own, name))
    }


def _by_run(
    checkpoints: Iterable[MeasuredCheckpoint],
) -> dict[str, list[MeasuredCheckpoint]]:
    runs: dict[str, list[MeasuredCheckpoint]] = {}
    for one in checkpoints:
        runs.setdefault(one.run, []).append(one)
    return runs


def _qualities(own: Sequence[MeasuredCheckpoint], name: str) -> dict[str, float]:
    """How good a measure says that checkpoints are; those where it is defined."""
    return {
        one.checkpoint: quality(name, value)
        for one in own
        if math.isfinite(value := measured(one, name))
    }


def _best(values: Mapping[str, float]) -> str:
    # Of equal ones the later: it has cost more, and none is known to be worse.
    return max(reversed(list(values)), key=lambda name: values[name])


def measures_of(checkpoints: Iterable[MeasuredCheckpoint]) -> list[str]:
    """Names of all measures, the epoch first."""
    names = dict.fromkeys(name for one in checkpoints for name in one.measures)
    return [EPOCH, *names]


def measured(checkpoint: MeasuredCheckpoint, name: str) -> float:
    """One measure of a checkpoint, the epoch among them; NaN: not defined."""
    if name == EPOCH:
        return checkpoint.epoch
    return checkpoint.measures.get(name, math.nan)
