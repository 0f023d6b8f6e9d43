import math

import numpy as np
import pytest
from scipy import stats

from medssl_mm.analysis.choosing import (
    MeasuredCheckpoint,
    agreements,
    choices,
    mean_correlation,
    quality,
)

SCORES = [0.30, 0.52, 0.61, 0.58, 0.40]


def checkpoints(run='a', **measures):
    """One for every ten epochs, with measures by name."""
    return [
        MeasuredCheckpoint(
            run,
            f'epoch_{10 * (n + 1)}',
            10 * (n + 1),
            {name: values[n] for name, values in measures.items()},
        )
        for n in range(len(SCORES))
    ]


def scores(run='a'):
    return {(run, f'epoch_{10 * (n + 1)}'): value for n, value in enumerate(SCORES)}


def by_measure(found):
    return {one.measure: one for one in found}


def test_a_measure_is_judged_by_rank_and_by_its_choice():
    rank = [3.0, 9.0, 8.0, 7.0, 5.0]
    found = by_measure(agreements(checkpoints(rankme=rank), scores()))
    assert list(found) == ['epoch', 'rankme']
    own = found['rankme']
    assert own.spearman.r == pytest.approx(stats.spearmanr(rank, SCORES).statistic)
    assert own.spearman.low < own.spearman.r < own.spearman.high
    assert (own.chosen, own.score) == ('epoch_20', 0.52)
    assert own.regret == pytest.approx(0.61 - 0.52)
    assert own.chance == pytest.approx(0.61 - np.mean(SCORES))
    # The plainest choice: the last one.
    assert found['epoch'].chosen == 'epoch_50'
    assert found['epoch'].regret == pytest.approx(0.61 - 0.40)


@pytest.mark.parametrize(
    ('name', 'values'),
    [
        ('loss', [5.0, 2.0, 1.0, 1.5, 3.0]),
        ('loss_stage3_local', [5.0, 2.0, 1.0, 1.5, 3.0]),
        ('alpha_req (pooled)', [3.0, 0.6, 1.1, 1.3, 2.0]),
        ('lidar (pooled)', [1.0, 7.0, 9.0, 8.0, 2.0]),
    ],
)
def test_more_is_better_less_loss_too_and_alpha_near_one(name, values):
    found = by_measure(agreements(checkpoints(**{name: values}), scores()))
    assert found[name].chosen == 'epoch_30' and found[name].regret == 0
    assert found[name].spearman.r > 0.8


def test_each_run_by_itself():
    """A measure that only tells runs apart says nothing within them."""
    both = [
        *checkpoints('a', rankme=[1.0] * 5),
        *checkpoints('b', rankme=[100.0] * 5),
    ]
    marks = scores('a') | {key: value + 0.3 for key, value in scores('b').items()}
    found = [one for one in agreements(both, marks) if one.measure == 'rankme']
    assert [one.run for one in found] == ['a', 'b']
    assert all(math.isnan(one.spearman.r) for one in found)
    assert all(one.chosen == 'epoch_50' for one in found)  # of equals the later


def test_what_is_not_defined_or_has_no_score_does_not_count():
    rank = [3.0, float('nan'), 8.0, 7.0, 5.0]
    known = scores()
    del known['a', 'epoch_30']
    found = by_measure(agreements(checkpoints(rankme=rank), known))
    assert found['rankme'].chosen == 'epoch_40'
    assert found['rankme'].spearman.points == 3
    assert found['rankme'].regret == 0
    assert found['epoch'].spearman.points == 4
    everywhere = choices(checkpoints(rankme=rank))
    assert everywhere == {('a', 'epoch'): 'epoch_50', ('a', 'rankme'): 'epoch_30'}


def test_mean_over_runs_has_the_interval_of_students_t():
    values = [0.9, 0.2, float('nan'), 0.7]
    found = mean_correlation(values)
    kept = [0.9, 0.2, 0.7]
    low, high = stats.t.interval(0.95, 2, np.mean(kept), stats.sem(kept))
    assert found.estimate == pytest.approx(np.mean(kept)) and found.units == 3
    assert found.low == pytest.approx(max(low, -1))
    assert found.high == pytest.approx(min(high, 1))
    assert math.isnan(mean_correlation([0.5]).low)
    assert not mean_correlation([float('nan')]).measured


def test_direction_of_measures():
    assert quality('alpha_req (pooled)', 0.7) == pytest.approx(-0.3)
    assert quality('loss', 2.0) == -2 and quality('contrastive_top1', 0.4) == 0.4
