"""Scores of predicted classes, of all images once."""

import numpy as np

from medssl_mm.statistics import Predictions
from medssl_mm.statistics.classification import score

#: What :func:`classification_scores` returns, if it is defined.
SCORES = ('macro_AUROC', 'macro_AP', 'macro_AUPR', 'macro_F1', 'accuracy')


def precision_recall_areas(
    scores: np.ndarray, positive: np.ndarray
) -> tuple[float, float]:
    """Two areas under the precision-recall curve.

    The average precision, a sum of steps, and the area by trapezoids, which is
    optimistic: it interpolates between points that no threshold reaches.

    Args:
        scores (np.ndarray): Larger for more likely positive.
        positive (np.ndarray): Which samples are; some must be.

    Shape: ``(N,)`` each.
    """
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve

    precision, recall, _ = precision_recall_curve(positive, scores)
    return (
        float(average_precision_score(positive, scores)),
        float(auc(recall, precision)),
    )


def classification_scores(predictions: Predictions) -> dict[str, float]:
    """AUROC, areas under the precision-recall curve, F1 and accuracy.

    Means over classes as in :data:`medssl_mm.statistics.classification.POLICY`;
    the areas, like the AUROC, over the classes that some images have and others
    have not, of two exclusive classes that of the second. What no class has is
    left out.

    Args:
        predictions (Predictions): What to score.

    Returns:
        dict[str, float]: Some of :data:`SCORES`, 0-1.
    """
    found = score(predictions)
    targets = predictions.targets
    defined = np.flatnonzero(targets.any(0) & ~targets.all(0) & predictions.counted)
    if predictions.exclusive_pair:
        defined = defined[defined == 1]
    areas = [
        precision_recall_areas(predictions.probabilities[:, one], targets[:, one])
        for one in defined
    ]
    mean_areas = np.mean(areas, axis=0) if areas else (np.nan, np.nan)
    numbers = (
        float(found.macro_auroc),
        *map(float, mean_areas),
        float(found.macro_f1),
        float(found.accuracy),
    )
    return {name: n for name, n in zip(SCORES, numbers) if np.isfinite(n)}
