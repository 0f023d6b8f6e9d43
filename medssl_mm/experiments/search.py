"""Settings chosen by validation: of several trainings, that which scores best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl_mm.errors import UserError
from medssl_mm.experiments.plan import Step
from medssl_mm.results.logs import read_scalars

__all__ = ['Choice', 'choose', 'validation_score']


@dataclass(frozen=True)
class Choice:
    """What a search has found.

    Args:
        key (str): Of the training that was best on validation.
        options (dict): What it was trained with, of the settings that were tried.
        scores (tuple[float]): Of all trainings, in the order of the search.
    """

    key: str
    options: dict[str, Any]
    scores: tuple[float, ...]


def validation_score(step: Step) -> float:
    """Read what a training reached on the validation cases.

    Of the best weights where these are kept, else at the last validation.

    Raises:
        UserError: Its log holds no such score, or no number.
    """
    curve = read_scalars(step.folder).get(step.monitor)
    score = math.nan
    if curve is not None:
        values = curve[:, 1]
        score = float(values[values == values].max() if step.best else values[-1])
    if math.isnan(score):
        raise UserError(
            f'{step.folder} has no {step.monitor} of a validation, by which settings '
            f'are chosen; delete {Path(step.folder)} and run the table again, or '
            'correct the validation data if they have one class alone'
        )
    return score


def choose(step: Step, steps: Mapping[str, Step]) -> Choice | None:
    """Choose among the trainings of a search; of equal ones the first.

    Args:
        step: That comes after the search.
        steps: All of the table, by key.

    Returns:
        Choice | None: None while a training is not finished, or without a search.

    Raises:
        UserError: A training has no score.
    """
    tried = [steps[key] for key, _ in step.choices]
    if not tried or not all(one.done for one in tried):
        return None
    scores = tuple(validation_score(one) for one in tried)
    key, options = step.choices[scores.index(max(scores))]
    return Choice(key, dict(options), scores)
