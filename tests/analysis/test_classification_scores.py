import numpy as np
import pytest

from medssl_mm.analysis.classification_scores import (
    classification_scores,
    precision_recall_areas,
)
from medssl_mm.statistics import Predictions


def slow_curve(scores, positive):
    """Recall and precision at every threshold, the highest first."""
    points = [(0.0, 1.0)]
    for threshold in sorted(set(scores), reverse=True):
        found = scores >= threshold
        hits = (found & positive).sum()
        points.append((hits / positive.sum(), hits / found.sum()))
    return points


@pytest.mark.parametrize('decimals', [1, 6])
def test_areas_equal_the_definitions(decimals):
    """Also with many ties."""
    rng = np.random.default_rng(0)
    scores, positive = rng.random(50).round(decimals), rng.random(50) < 0.3
    points = slow_curve(scores, positive)
    steps = trapezoids = 0.0
    for (before, left), (recall, precision) in zip(points, points[1:]):
        steps += (recall - before) * precision
        trapezoids += (recall - before) * (left + precision) / 2
    found = precision_recall_areas(scores, positive)
    assert found == pytest.approx((steps, trapezoids), abs=1e-12)


def test_areas_of_perfect_and_of_constant_scores():
    positive = np.arange(20) < 5
    assert precision_recall_areas(positive.astype(float), positive) == (1.0, 1.0)
    precision, area = precision_recall_areas(np.zeros(20), positive)
    assert precision == pytest.approx(0.25)
    assert area == pytest.approx((1 + 0.25) / 2)


def predictions(targets, probabilities, multi_label=False):
    targets = np.array(targets, bool)
    names = ('',) * len(targets)
    classes = tuple('abc'[: targets.shape[1]])
    return Predictions(
        classes, multi_label, names, names, targets, np.array(probabilities, float)
    )


def test_scores_of_two_exclusive_classes_are_those_of_the_second():
    likely = np.array([0.1, 0.4, 0.35, 0.8])
    positive = np.array([False, False, True, True])
    found = classification_scores(
        predictions(
            np.stack([~positive, positive], 1), np.stack([1 - likely, likely], 1)
        )
    )
    precision, area = precision_recall_areas(likely, positive)
    assert found['macro_AP'] == pytest.approx(precision)
    assert found['macro_AUPR'] == pytest.approx(area)
    assert found['macro_AUROC'] == pytest.approx(0.75)
    assert found['accuracy'] == pytest.approx(0.75)
    assert set(found) == {
        'macro_AUROC',
        'macro_AP',
        'macro_AUPR',
        'macro_F1',
        'accuracy',
    }


def test_means_leave_out_what_is_not_defined():
    targets = [[1, 0, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]]
    likely = [[0.9, 0.2, 0.3], [0.1, 0.1, 0.6], [0.8, 0.3, 0.9], [0.3, 0.1, 0.2]]
    found = classification_scores(predictions(targets, likely, multi_label=True))
    assert found['macro_AUROC'] == found['macro_AP'] == 1.0


def test_one_class_leaves_accuracy_and_f1():
    found = classification_scores(
        predictions([[1, 0], [1, 0]], [[0.9, 0.1], [0.4, 0.6]])
    )
    assert set(found) == {'macro_F1', 'accuracy'}
    assert found['accuracy'] == 0.5
