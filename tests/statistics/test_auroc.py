import numpy as np
import pytest

from medssl_mm.statistics.auroc import weighted_auroc


def test_pairs_of_two_folds_do_not_count():
    """Scores of each fold have a scale of their own; equal to a loop over pairs."""
    rng = np.random.default_rng(3)
    folds = rng.integers(0, 3, 40)
    positive = rng.random(40) < 0.4
    scores = np.round(rng.normal(size=40) + positive, 1) + 10 * folds
    weights = rng.integers(0, 3, (5, 40))
    for found, weight in zip(weighted_auroc(scores, positive, weights, folds), weights):
        right = pairs = 0.0
        for i in np.flatnonzero(positive):
            for j in np.flatnonzero(~positive & (folds == folds[i])):
                pairs += weight[i] * weight[j]
                order = (scores[i] > scores[j]) + (scores[i] == scores[j]) / 2
                right += weight[i] * weight[j] * order
        assert found == pytest.approx(right / pairs)
    shifted = weighted_auroc(scores - 100 * folds, positive, weights, folds)
    np.testing.assert_allclose(
        shifted, weighted_auroc(scores, positive, weights, folds)
    )
    # A fold of one class has no pair.
    alone = weighted_auroc(scores, folds == 0, weights, folds)
    assert np.isnan(alone).all()


def test_weighted_auroc_equals_a_loop_over_pairs():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, 12).astype(float)
    positive = rng.random(12) < 0.4
    weights = rng.integers(0, 4, (3, 12))
    for found, weight in zip(weighted_auroc(scores, positive, weights), weights):
        won = total = 0.0
        for i in np.flatnonzero(positive):
            for j in np.flatnonzero(~positive):
                won += (
                    weight[i]
                    * weight[j]
                    * ((scores[i] > scores[j]) + (scores[i] == scores[j]) / 2)
                )
                total += weight[i] * weight[j]
        assert found == pytest.approx(won / total)


def test_auroc_ignores_monotone_changes_and_one_sided_resamples():
    scores, positive = np.array([0.1, 0.2, 0.3, 0.9]), np.array([0, 1, 0, 1])
    weights = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 2, 0, 0]])
    first = weighted_auroc(scores, positive, weights)
    assert first[0] == 0.75 and np.isnan(first[1:]).all()
    np.testing.assert_array_equal(
        weighted_auroc(np.exp(scores), positive, weights), first
    )
