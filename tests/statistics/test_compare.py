import csv

import numpy as np
import pytest
from scipy import stats

from medssl_mm.errors import UserError
from medssl_mm.results import resample_cases
from medssl_mm.statistics import mean_over_seeds, paired_difference
from medssl_mm.statistics.compare import Resampled, holm, two_level
from medssl_mm.statistics.measures import DICE, HD95, VOLUME_ERROR


def write(path, values, patients=None):
    with open(path, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['case_id', 'patient_id', 'class', 'dice'])
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                writer.writerow(
                    [
                        f'c{i}',
                        patients[i] if patients else f'p{i}',
                        f'o{j}',
                        '' if np.isnan(value) else value,
                    ]
                )
    return path


def test_pairing_removes_the_variation_between_patients(tmp_path):
    rng = np.random.default_rng(0)
    base = rng.random((12, 2))
    first = write(tmp_path / 'a.csv', base)
    second = write(tmp_path / 'b.csv', base + 0.03)
    arms = [[resample_cases(path, samples=500)] for path in (first, second)]
    result = paired_difference(*arms)
    assert result.estimate == pytest.approx(0.03)
    assert result.low == pytest.approx(0.03) and result.units == 12
    assert paired_difference(*arms[::-1]).estimate == pytest.approx(-0.03)
    (alone,) = arms[0]
    low, high = np.percentile(alone.values[1:], [2.5, 97.5])
    assert result.high - result.low < 0.1 * (high - low)
    assert result.p < 1e-9 and result.by_seed == pytest.approx((0.03,))


def test_runs_of_one_method_are_averaged(tmp_path):
    base = np.random.default_rng(0).random((6, 1))
    one, two, other = (
        resample_cases(write(tmp_path / f'{n}.csv', base + shift), samples=100)
        for n, shift in zip('abc', (0.0, 0.02, 0.05))
    )
    assert paired_difference([one, two], [other]).estimate == pytest.approx(0.04)


def test_other_cases_are_refused(tmp_path):
    first = write(tmp_path / 'a.csv', np.ones((3, 1)))
    second = write(tmp_path / 'b.csv', np.ones((4, 1)))
    parts = [[resample_cases(path, samples=10)] for path in (first, second)]
    with pytest.raises(UserError, match='not of the same cases'):
        paired_difference(*parts)


def curves_of(values, samples, seed=0):
    """Mean over patients of every seed: of all, then of each resample."""
    patients = values.shape[1]
    times = np.random.default_rng(seed).multinomial(
        patients, np.full(patients, 1 / patients), size=samples
    )
    return np.column_stack([values.mean(1), values @ times.T / patients])


def made(rng, seeds, patients, seed_sd, patient_sd=8.0, both_sd=4.0):
    return (
        rng.normal(0, seed_sd, (seeds, 1))
        + rng.normal(0, patient_sd, (1, patients))
        + rng.normal(0, both_sd, (seeds, patients))
    )


@pytest.mark.parametrize('seeds, patients', [(3, 20), (5, 14), (2, 8)])
def test_interval_is_that_of_an_analysis_of_variance(seeds, patients):
    """Crossed random effects, by their mean squares."""
    values = made(np.random.default_rng(seeds), seeds, patients, seed_sd=3)
    found, p = two_level(curves_of(values, 40000), patients)
    by_seed, by_patient = values.mean(1), values.mean(0)
    rest = values - by_seed[:, None] - by_patient + values.mean()
    error = (rest**2).sum() / (seeds - 1) / (patients - 1) / seeds / patients
    parts = by_seed.var(ddof=1) / seeds, by_patient.var(ddof=1) / patients
    variance = max(sum(parts) - error, *parts)

    def quantile(share):
        """Of both parts, weighted by their variances (Cochran)."""
        by = [stats.t.ppf(share, n - 1) for n in (seeds, patients)]
        return np.average(by, weights=parts)

    half = quantile(0.975) * np.sqrt(variance)
    assert found.estimate == pytest.approx(values.mean())
    assert found.high - found.estimate == pytest.approx(half, rel=0.02)
    assert found.estimate - found.low == pytest.approx(half, rel=0.02)
    # The p whose quantile is the mean in standard errors.
    assert quantile(1 - p / 2) == pytest.approx(
        abs(values.mean()) / np.sqrt(variance), rel=0.02
    )


# With patients who differ as scores do (8 points), and as paired differences do (3).
@pytest.mark.parametrize('patient_sd', [3, 8])
@pytest.mark.parametrize('seeds, patients, sd', [(3, 14, 1), (3, 40, 3), (8, 20, 2)])
def test_interval_covers_the_truth_over_new_seeds_and_patients(
    seeds, patients, sd, patient_sd
):
    rng = np.random.default_rng(seeds)
    hits = 0
    for trial in range(600):
        values = made(rng, seeds, patients, sd, patient_sd)
        found, _ = two_level(curves_of(values, 200, trial), patients)
        hits += found.low <= 0 <= found.high
    assert 0.93 <= hits / 600 <= 0.99


@pytest.mark.parametrize('others', [1, 3, 5])
def test_difference_of_other_seeds_covers_the_truth(others):
    """Also where one method has one seed: it varies as the other one does."""
    rng = np.random.default_rng(others)
    hits = 0
    for trial in range(400):
        # The patients are the same, as in the results of one test set.
        patients = rng.normal(0, 8, (1, 20))
        first, second = (
            curves_of(made(rng, seeds, 20, 2, 0) + patients, 200, trial)
            for seeds in (others, 5)
        )
        found, _ = two_level(second, 20, minus=first)
        hits += found.low <= 0 <= found.high
    assert 0.92 <= hits / 400 <= 0.99


def test_a_p_is_below_a_level_where_the_interval_leaves_zero_out():
    rng = np.random.default_rng(0)
    for shift in (0, 1, 3, 5, 40):
        found, p = two_level(curves_of(made(rng, 3, 20, 1) + shift, 200), 20)
        assert (p < 0.05) == (not found.low <= 0 <= found.high)
        assert 0 < p <= 1


def parts_of(curves, patients=20):
    return [
        Resampled(f'seed {i}', curve, {}, patients) for i, curve in enumerate(curves)
    ]


def test_methods_are_paired_by_the_seeds_that_both_have():
    """What a seed draws, such as the labels, is the same for both."""
    rng = np.random.default_rng(0)
    shared = curves_of(made(rng, 4, 20, seed_sd=9), 500)  # seeds 3 to 6
    gain = shared + 1
    found = paired_difference(
        parts_of(shared[:3]), parts_of(gain[1:]), ((3, 4, 5), (4, 5, 6))
    )
    assert found.seeds == (4, 5) and not found.all_seeds
    assert found.by_seed == pytest.approx((1.0, 1.0))
    assert found.low == pytest.approx(1) and found.high == pytest.approx(1)
    # The order in which they are given says nothing.
    turned = paired_difference(
        parts_of(shared[[2, 0, 1]]), parts_of(gain[:3]), ((5, 3, 4), (3, 4, 5))
    )
    assert turned.seeds == (3, 4, 5) and turned.all_seeds
    assert turned.low == pytest.approx(1)
    apart = paired_difference(
        parts_of(shared[:2]), parts_of(gain[2:]), ((3, 4), (5, 6))
    )
    assert apart.seeds == apart.by_seed == () and apart.high - apart.low > 2


def test_other_numbers_of_seeds_are_compared():
    rng = np.random.default_rng(1)
    first, second = made(rng, 3, 20, 2), made(rng, 5, 20, 2) + 100
    curves = [curves_of(values, 4000) for values in (first, second)]
    found, p = two_level(curves[1], 20, minus=curves[0])
    assert found.estimate == pytest.approx(second.mean() - first.mean())
    parts = [
        first.mean(1).var(ddof=1) / 3,
        second.mean(1).var(ddof=1) / 5,
    ]
    assert (found.high - found.low) / 2 > 1.96 * np.sqrt(sum(parts))
    assert p < 1e-3


def test_what_a_seed_shares_with_the_other_method_cancels():
    """Both methods get the same labels of a seed: that is no noise."""
    rng = np.random.default_rng(0)
    shared = made(rng, 3, 20, seed_sd=9)
    first = curves_of(shared, 1000)
    second = curves_of(shared + 1 + rng.normal(0, 0.1, shared.shape), 1000)
    paired, _ = two_level(second - first, 20)
    apart, _ = two_level(second, 20, minus=first)
    assert 0.9 < paired.low < paired.high < 1.1
    assert apart.low < 0 < apart.high


def test_one_patient_gives_no_interval():
    found, p = two_level(np.ones((3, 10)), 1)
    assert found.estimate == 1 and np.isnan([found.low, found.high, p]).all()


@pytest.mark.parametrize(
    ('measure', 'values'),
    [(HD95, (0.5, 9.0)), (VOLUME_ERROR, (1.0, 30.0)), (DICE, (0.02, 0.99))],
    ids=['distance', 'volume', 'share'],
)
def test_no_interval_passes_what_a_score_can_be(measure, values):
    least, greatest = measure.bounds
    rng = np.random.default_rng(0)
    parts = [
        Resampled(str(value), value + rng.normal(0, 0.1, 201), {}, 20)
        for value in values
    ]
    free = mean_over_seeds(parts)
    assert free.low < least and (free.high > greatest or greatest == np.inf)
    bounded = mean_over_seeds(parts, measure.bounds)
    assert bounded.low == least and bounded.high == min(free.high, greatest)


def test_holm_equals_the_step_down_by_hand():
    assert holm([0.01, np.nan, 0.04, 0.03]) == pytest.approx(
        [0.03, np.nan, 0.06, 0.06], nan_ok=True
    )
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []
