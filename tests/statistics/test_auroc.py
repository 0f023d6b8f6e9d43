import numpy as np
import pytest

from medssl_mm.statistics.auroc import weighted_auroc


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
