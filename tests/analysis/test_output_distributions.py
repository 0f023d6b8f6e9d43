import numpy as np
import pytest
from scipy import stats

from medssl_mm.analysis.output_distributions import ks_distances


def outputs(seed, images=50, classes=3):
    return np.random.default_rng(seed).random((images, classes)).round(1)


def test_equals_a_loop_over_thresholds_and_scipy():
    first, second = outputs(0), outputs(1, images=40) ** 2
    found = ks_distances(first, second)
    for column in range(3):
        one, two = first[:, column], second[:, column]
        largest = max(
            abs((one <= x).mean() - (two <= x).mean())
            for x in np.concatenate([one, two])
        )
        assert found[column] == pytest.approx(largest)
        assert found[column] == pytest.approx(stats.ks_2samp(one, two).statistic)


def test_identical_disjoint_and_reordered():
    values = outputs(0)
    np.testing.assert_array_equal(ks_distances(values, values), 0)
    np.testing.assert_array_equal(ks_distances(values, values[::-1]), 0)
    np.testing.assert_array_equal(ks_distances(values, values + 2), 1)
    # Only the order of the values counts.
    other = outputs(1)
    np.testing.assert_array_equal(
        ks_distances(values, other), ks_distances(values**3, other**3)
    )


def test_unfit_outputs():
    with pytest.raises(ValueError, match=r'got \(50, 3\) and \(50, 2\)'):
        ks_distances(outputs(0), outputs(0, classes=2))
    broken = outputs(0)
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match='hold NaN or infinity'):
        ks_distances(outputs(0), broken)
