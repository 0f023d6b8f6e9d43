import numpy as np
import pytest
from scipy import stats

from medssl_mm.statistics import bootstrap_means, few_patients, patient_weights


def test_cases_of_a_patient_are_drawn_together():
    weights = patient_weights(list('aabbbc'), 200, seed=1)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 3]).all()
    assert (weights[:, [0, 2, 5]].sum(1) == 3).all()


def test_equals_a_loop_over_resamples():
    rng = np.random.default_rng(0)
    values = rng.random((7, 2))
    values[2, 0] = np.nan
    patients = list('aabcdee')
    per_class, overall = bootstrap_means(values, patients, 500, seed=3)
    draws = []
    for row in patient_weights(patients, 500, seed=3):
        cases = np.repeat(np.arange(7), row)
        draws.append(np.nanmean(values[cases], axis=0))
    draws = np.array(draws)
    assert per_class[0].estimate == pytest.approx(np.nanmean(values[:, 0]))
    assert per_class[0].units == 6 and per_class[1].units == 7
    # Five patients: Student's interval with the spread of the resamples.
    for found, drawn in ((per_class[1], draws[:, 1]), (overall, draws.mean(1))):
        half = stats.t.ppf(0.975, 4) * drawn.std() * np.sqrt(5 / 4)
        np.testing.assert_allclose(
            [found.low, found.high], [found.estimate - half, found.estimate + half]
        )
    _, limited = bootstrap_means(values, patients, 500, seed=3, bounds=(0.4, 0.6))
    assert (limited.low, limited.high) == (0.4, 0.6)


def test_percentiles_from_fifteen_patients():
    values = np.random.default_rng(0).random((15, 1))
    _, found = bootstrap_means(values, list(range(15)), 500, seed=3)
    drawn = patient_weights(list(range(15)), 500, seed=3) @ values[:, 0] / 15
    np.testing.assert_allclose(
        [found.low, found.high], np.percentile(drawn, [2.5, 97.5])
    )


@pytest.mark.parametrize('patients', [3, 5, 10])
def test_interval_of_few_patients_covers_the_truth(patients):
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(400):
        values = rng.normal(0.7, 0.1, (patients, 1))
        _, found = bootstrap_means(values, list(range(patients)), 300, trial)
        hits += found.low <= 0.7 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_interval_covers_the_truth():
    """About 95 % of intervals hold the true mean with 40 patients."""
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        values = rng.normal(0.7, 0.1, (40, 1))
        _, overall = bootstrap_means(values, list(range(40)), 400, trial)
        hits += overall.low <= 0.7 <= overall.high
    assert 0.89 <= hits / 200 <= 0.99


def test_clustered_cases_widen_the_interval():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.random((10, 1)), 4, axis=0)
    _, together = bootstrap_means(values, np.repeat(np.arange(10), 4))
    _, apart = bootstrap_means(values, np.arange(40))
    assert together.high - together.low > 1.7 * (apart.high - apart.low)


def test_class_that_never_counts_is_nan_without_warning(recwarn):
    values = np.array([[0.5, np.nan], [0.7, np.nan]])
    per_class, overall = bootstrap_means(values, ['a', 'b'], 50)
    assert np.isnan(per_class[1].estimate) and np.isnan(per_class[1].low)
    assert overall.estimate == pytest.approx(0.6)
    assert not recwarn.list


def test_note_on_few_patients():
    assert few_patients(15) == []
    assert few_patients(14)[0].startswith('only 14 patients: ')
    assert few_patients(1, 'test patient')[0].startswith('only 1 test patient: ')
