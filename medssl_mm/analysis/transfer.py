"""How well encoders do over many data sets: scores, and what they go along with."""

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.statistics import Predictions
from medssl_mm.statistics.classification import (
    Scores,
    resampled_scores,
    score,
)
from medssl_mm.statistics.compare import INTERVALS

ACCURACY, PER_CLASS, AUROC = 'accuracy', 'mean per-class accuracy', 'macro AUROC'
#: AUROC of decisions, not of probabilities: the balanced accuracy of two classes.
HARD_AUC = 'auc'
SCORES = (ACCURACY, PER_CLASS, AUROC, HARD_AUC)
POLICY = (
    'Accuracy: share of right decisions. Mean per-class accuracy: the share of each '
    'class that is found, averaged over classes. Macro AUROC: area under the ROC '
    'curve of each class against the rest, averaged over classes; of several folds of '
    f'pairs of images within one. {INTERVALS}; differences are paired: both encoders '
    'on the same resamples. Few-shot: interval of the mean over episodes, the same '
    'for all encoders.'
)


def transfer_scores(
    predictions: Predictions, samples: int = 2000, seed: int = 0, hard: bool = False
) -> dict[str, np.ndarray]:
    """Score all images, then resamples of their patients.

    Args:
        predictions (Predictions): Of the test images.
        samples (int): Resamples. Defaults to 2000.
        seed (int): Of the resampling. Defaults to 0.
        hard (bool): Whether two classes also get :data:`HARD_AUC`. Defaults to
            False.

    Returns:
        dict[str, np.ndarray]: Some of :data:`SCORES`; of several labels only
        the AUROC.

    Shape: ``(1 + samples,)`` each.

    Raises:
        UserError: All test images are of one class.
    """
    missing = ~predictions.targets.any(0) | predictions.targets.all(0)
    if missing.all() or (not predictions.multi_label and (~missing).sum() < 2):
        counts = ', '.join(
            f'{name} {count}'
            for name, count in zip(predictions.classes, predictions.targets.sum(0))
        )
        raise UserError(
            f'the test images are of one class ({counts}), so nothing can be told '
            'apart; use another split'
        )
    parts = [score(predictions)]
    if samples:
        parts.append(resampled_scores(predictions, samples, seed))

    def joined(name: str) -> np.ndarray:
        return np.concatenate([np.atleast_1d(getattr(part, name)) for part in parts])

    found = {AUROC: joined('macro_auroc')}
    if not predictions.multi_label:
        found = {
            ACCURACY: joined('accuracy'),
            PER_CLASS: joined('macro_recall'),
            **found,
        }
    if hard and predictions.exclusive_pair:
        # The area under the curve of one threshold is the mean of both recalls.
        found[HARD_AUC] = np.concatenate([_hard_auc(predictions, p) for p in parts])
    return found


def _hard_auc(predictions: Predictions, scores: Scores) -> np.ndarray:
    return np.atleast_1d(scores.recall.mean(-1))


def scaled_performance(scores: np.ndarray) -> np.ndarray:
    """Mean over columns of scores that are scaled to 0-1 within each.

    The best encoder of a column gets 1, the worst 0. Columns in which an
    encoder has no score are left out, as are those in which all are equal.

    Shape: ``(encoders, columns)``, NaN: none -> ``(encoders,)``, NaN where no
        column is left.
    """
    scores = np.asarray(scores, float)
    lowest, highest = scores.min(0, initial=np.inf), scores.max(0, initial=-np.inf)
    with np.errstate(invalid='ignore'):
        complete = np.isfinite(scores).all(0) & (highest > lowest)
    if not complete.any():
        return np.full(len(scores), np.nan)
    reach = (highest - lowest)[complete]
    return ((scores[:, complete] - lowest[complete]) / reach).mean(1)
