import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from medssl_mm.analysis.transfer import (
    ACCURACY,
    AUROC,
    HARD_AUC,
    PER_CLASS,
    scaled_performance,
    transfer_scores,
)
from medssl_mm.errors import UserError
from medssl_mm.statistics import Predictions
from medssl_mm.statistics.correlation import correlation

# Accuracies that the published comparison stored, 13 encoders, and what it made
# of them; the last five have seen X-rays.
PUBLISHED = {
    'Shenzhen': '74.46 73.76 75.22 76.29 77.48 70.86 74.16 73.43 69.08 73.22 68.62 '
    '73.89 67.69',
    'Montgomery': '63.20 63.54 67.38 70.98 63.58 62.31 62.94 65.31 69.15 67.54 67.13 '
    '57.25 65.02',
    'CheXpert': '59.73 57.39 57.61 58.44 58.51 56.14 57.69 57.41 62.10 61.57 62.45 '
    '58.06 60.33',
    'ChestX': '29.86 28.69 27.76 30.28 28.52 27.71 28.58 27.88 33.73 34.79 34.82 26.15 '
    '29.01',
    'CheXpert linear': '75.01 74.94 74.97 74.61 74.20 73.47 71.43 72.50 75.97 77.28 '
    '75.66 74.27 74.76',
    'CheXpert finetune': '75.82 79.96 77.84 78.97 78.30 79.43 79.31 79.62 78.68 78.80 '
    '77.87 74.98 74.55',
    'BACH': '80.61 82.53 82.78 83.28 81.02 80.49 80.78 81.21 66.86 69.66 71.60 66.96 '
    '69.07',
    'AMD': '74.90 74.91 70.94 74.58 75.26 75.70 74.59 77.12 62.72 62.87 65.05 60.08 '
    '68.17',
    'PM': '94.92 94.21 94.69 95.83 93.49 94.80 93.68 94.86 78.84 83.66 76.90 79.06 '
    '87.59',
    'EyePACS': '32.78 34.07 34.47 33.66 34.19 31.32 32.96 33.49 22.56 25.71 22.23 '
    '24.27 27.78',
    'EyePACS linear': '31.51 32.18 37.61 34.27 31.51 31.46 30.52 33.96 21.26 22.85 '
    '20.99 20.91 24.96',
    'EyePACS finetune': '36.48 45.64 44.47 41.17 40.89 47.08 42.66 40.18 - - - - -',
}
IN_DOMAIN = list(PUBLISHED)[:6]
OUT_OF_DOMAIN = list(PUBLISHED)[6:]


def column(name):
    return [float('nan' if v == '-' else v) for v in PUBLISHED[name].split()]


@pytest.mark.parametrize(
    'columns, expected',
    [
        (
            IN_DOMAIN,
            '.495 .528 .523 .680 .546 .354 .414 .449 .728 .826 .692 .250 .355',
        ),
        (
            # Fine-tuning on EyePACS has no number of the last five.
            OUT_OF_DOMAIN,
            '.831 .876 .909 .917 .848 .813 .808 .905 .061 .218 .117 .057 .374',
        ),
    ],
)
def test_scaled_performance_of_the_published_numbers(columns, expected):
    found = scaled_performance(np.array([column(name) for name in columns]).T)
    np.testing.assert_allclose(found, [float(v) for v in expected.split()], atol=5e-4)


def test_scaled_performance_leaves_out_what_compares_nothing():
    scores = np.array([[1.0, 5.0, np.nan], [3.0, 5.0, 2.0], [2.0, 5.0, 1.0]])
    np.testing.assert_allclose(scaled_performance(scores), [0, 1, 0.5])
    assert np.isnan(scaled_performance(scores[:, 1:])).all()


def test_correlations_of_the_published_numbers():
    """Pearson with ImageNet top-1, first eight encoders."""
    top1 = [69.3, 71.1, 75.3, 74.3, 61.7, 77.2, 72.12, 74.98]
    known = dict(zip('abcdefgh', top1))
    for name, r, p in (
        ('Shenzhen', -0.672, 0.068),
        ('PM', 0.615, 0.10),
        ('CheXpert', -0.589, 0.12),
        ('BACH', 0.228, 0.59),
    ):
        # The others have no accuracy on ImageNet.
        found = correlation(dict(zip('abcdefghijklm', column(name))), known)
        assert found.points == 8
        assert found.r == pytest.approx(r, abs=1e-3)
        assert found.p == pytest.approx(p, abs=6e-3)


@pytest.mark.parametrize('points', [3, 4, 5, 6])
def test_few_ranks_are_compared_in_all_orders(points):
    rng = np.random.default_rng(points)
    second = list(rng.permutation(points))
    for first in ([*range(points)], [0, *range(points - 1)], second):
        found = correlation(dict(enumerate(first)), dict(enumerate(second)), 'spearman')
        orders = [
            stats.spearmanr(order, second).statistic
            for order in itertools.permutations(first)
        ]
        as_far = np.abs(orders) >= abs(found.r) - 1e-9
        assert found.p == pytest.approx(as_far.mean())


def test_p_of_more_ranks():
    first = dict(enumerate(range(9)))
    second = dict(enumerate([1, 0, 2, 4, 3, 5, 8, 6, 7]))
    found = correlation(first, second, 'spearman')
    known = stats.spearmanr([*first.values()], [*second.values()])
    assert found.p == pytest.approx(known.pvalue)


def test_intervals_of_correlations():
    rng = np.random.default_rng(0)
    x = dict(enumerate(rng.normal(size=20)))
    y = {name: value + rng.normal() for name, value in x.items()}
    own = stats.pearsonr(list(x.values()), list(y.values())).confidence_interval()
    found = correlation(x, y)
    assert (found.low, found.high) == pytest.approx(tuple(own))
    ranks = [dict(enumerate(stats.rankdata(list(v.values())))) for v in (x, y)]
    by_rank, rank = correlation(*ranks), correlation(x, y, 'spearman')
    assert rank.r == pytest.approx(by_rank.r)
    # Wider than that of ranks taken for normal numbers.
    assert rank.low < by_rank.low < by_rank.high < rank.high
    assert np.isnan(correlation({0: 1, 1: 2}, {0: 1, 1: 2}).r)
    assert np.isnan(correlation({0: 1, 1: 1, 2: 1}, {0: 1, 1: 2, 2: 3}).r)
    three = correlation({0: 1, 1: 2, 2: 4}, {0: 1, 1: 2, 2: 3})
    assert three.r > 0.9 and np.isnan(three.low)


def made(classes=2, images=60, multi_label=False, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    targets = labels[:, None] == np.arange(classes)
    probabilities = rng.dirichlet(np.ones(classes), images) + 0.3 * targets
    return labels, Predictions(
        tuple(f'c{n}' for n in range(classes)),
        multi_label,
        tuple(map(str, range(images))),
        tuple(str(n // 3) for n in range(images)),
        targets,
        probabilities / probabilities.sum(1, keepdims=True),
    )


@pytest.mark.parametrize('classes', [2, 4])
def test_scores_are_those_of_scikit_learn(classes):
    labels, predictions = made(classes)
    found = transfer_scores(predictions, 50, hard=True)
    decided = predictions.probabilities.argmax(1)
    assert found[ACCURACY][0] == pytest.approx((decided == labels).mean())
    assert found[PER_CLASS][0] == pytest.approx(
        balanced_accuracy_score(labels, decided)
    )
    if classes == 2:
        assert found[AUROC][0] == pytest.approx(
            roc_auc_score(labels, predictions.probabilities[:, 1])
        )
        # As the published code computes it: of decisions.
        assert found[HARD_AUC][0] == pytest.approx(roc_auc_score(labels, decided))
        assert found[HARD_AUC][0] != pytest.approx(found[AUROC][0], abs=1e-3)
        assert HARD_AUC not in transfer_scores(predictions, 0)
    else:
        assert HARD_AUC not in found
        assert found[AUROC][0] == pytest.approx(
            roc_auc_score(labels, predictions.probabilities, multi_class='ovr')
        )
    assert all(len(values) == 51 for values in found.values())


def test_resamples_are_paired():
    """The same patients are drawn whoever predicts."""
    _, first = made(3)
    again = transfer_scores(first, 20)
    for name, values in transfer_scores(first, 20).items():
        np.testing.assert_array_equal(values, again[name])


def test_several_labels_have_the_auroc_alone():
    _, predictions = made(3, multi_label=True)
    assert list(transfer_scores(predictions, 5, hard=True)) == [AUROC]


def test_a_test_set_of_one_class():
    labels, predictions = made(2)
    only = Predictions(
        predictions.classes,
        False,
        predictions.image_ids,
        predictions.patients,
        np.tile([True, False], (60, 1)),
        predictions.probabilities,
    )
    with pytest.raises(UserError, match=r'of one class \(c0 60, c1 0\)'):
        transfer_scores(only, 0)
