"""Seeds joined and compared, against hand-made evaluations."""

import csv
import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from medssl_mm import results
from medssl_mm.errors import UserError
from medssl_mm.results import Run
from medssl_mm.results.runs import COLUMNS
from medssl_mm.statistics import mean_over_seeds
from tests.results.made import write_predictions, write_result


def test_seed_mean_is_mean_of_class_means_of_seeds(tmp_path):
    first = [[0.2, 0.4], [np.nan, 0.8]]
    second = [[0.4, 0.4], [np.nan, 0.4]]
    folders = [
        write_result(tmp_path / name, values)
        for name, values in (('a', first), ('b', second))
    ]
    parts = [results.resample_cases(folder / 'cases.csv') for folder in folders]
    found = mean_over_seeds(parts)
    # Per seed: liver 0.2, spleen 0.6; liver 0.4, spleen 0.4.
    assert [part.values[0] for part in parts] == pytest.approx([0.4, 0.4])
    assert found.estimate == pytest.approx(0.4)
    assert found.units == 1
    # Both cases belong to the only patient: nothing tells how others vary.
    assert math.isnan(found.low) and math.isnan(found.high)


def test_interval_agrees_with_a_plain_bootstrap(tmp_path, scores):
    folder = write_result(tmp_path, scores[0])
    found = mean_over_seeds(
        [results.resample_cases(folder / 'cases.csv', samples=4000)]
    )
    rng = np.random.default_rng(1)
    means = []
    for _ in range(4000):
        drawn = rng.integers(0, 4, 4)
        cases = np.concatenate([[2 * p, 2 * p + 1] for p in drawn])
        means.append(scores[0][cases].mean())
    # Of four patients: Student's interval with that spread.
    half = stats.t.ppf(0.975, 3) * np.std(means) * np.sqrt(4 / 3)
    expected = found.estimate - half, found.estimate + half
    assert (found.low, found.high) == pytest.approx(expected, abs=2e-2)


def test_difference_is_paired(tmp_path, scores):
    """Patients differ a lot, the gain little: the pairing must show it."""
    runs = [
        Run('linear', name, (write_result(tmp_path / name, values),))
        for name, values in zip(('random', 'moco'), scores)
    ]
    random, moco = results.summarize(runs, 'random')
    assert not random.difference.measured
    mean, low, high = moco.difference.numbers
    assert mean == pytest.approx((scores[1] - scores[0]).mean())
    assert 0.15 < low < mean < high < 0.25
    assert high - low < (moco.score.high - moco.score.low)


def test_spread_over_seeds(tmp_path, scores):
    folders = tuple(
        write_result(tmp_path / str(seed), scores[0] + shift)
        for seed, shift in enumerate((0.0, 0.1, 0.2))
    )
    (row,) = results.summarize([Run('linear', 'random', folders)])
    assert row.spread == pytest.approx(0.1)
    assert row.score.estimate == pytest.approx(scores[0].mean() + 0.1)


def test_refuses_results_of_different_splits(tmp_path, scores):
    runs = [
        Run('linear', 'a', (write_result(tmp_path / 'a', scores[0]),)),
        Run(
            'linear', 'b', (write_result(tmp_path / 'b', scores[1], split_hash='xyz'),)
        ),
    ]
    with pytest.raises(UserError, match='different splits'):
        results.summarize(runs)


@pytest.mark.parametrize(
    'hashes, reason',
    [
        (('ab-1', 'ab-2'), 'same names, but images or labels are others'),
        (('ab', 'ab-2'), 'one result is of before'),
        (('ab-1', 'cd-1'), 'different splits; compare'),
    ],
)
def test_says_what_differs_between_splits(tmp_path, scores, hashes, reason):
    runs = [
        Run('linear', h, (write_result(tmp_path / h, scores[0], split_hash=h),))
        for h in hashes
    ]
    with pytest.raises(UserError, match=reason):
        results.summarize(runs)
    assert len(results.summarize(runs[:1])) == 1


def test_refuses_a_baseline_that_is_not_there(tmp_path, scores):
    run = Run('linear', 'a', (write_result(tmp_path, scores[0]),))
    with pytest.raises(UserError, match="'random'.*baseline.*'a'"):
        results.summarize([run], 'random')


def test_missing_or_foreign_metrics_are_named(tmp_path):
    with pytest.raises(UserError, match=r'metrics\.json does not exist'):
        results.read_metrics(tmp_path)
    (tmp_path / 'metrics.json').write_text('{"mean": 1}')
    with pytest.raises(UserError, match='not a result of'):
        results.read_metrics(tmp_path)


def test_rows_of_classifiers_equal_a_loop_over_resamples(classifiers):
    from sklearn.metrics import roc_auc_score

    from medssl_mm.statistics import patient_weights

    runs, made = classifiers
    random, moco = results.summarize(runs, 'random', samples=200)

    def macro(name, times):
        index = np.repeat(np.arange(60), times)
        return np.mean(
            [
                [
                    roc_auc_score(p.targets[index, c], p.probabilities[index, c])
                    for c in range(2)
                ]
                for p in made[name]
            ]
        )

    def single(name):
        return [
            np.mean(
                [
                    roc_auc_score(p.targets[:, c], p.probabilities[:, c])
                    for c in range(2)
                ]
            )
            for p in made[name]
        ]

    weights = patient_weights(made['moco'][0].patients, 200, seed=0)
    drawn = {name: [macro(name, times) for times in weights] for name in made}
    once = np.ones(60, int)
    for row in (random, moco):
        name = row.run.label
        assert row.score.estimate == pytest.approx(macro(name, once))
        assert row.score.low < min(np.percentile(drawn[name], [5]))
    assert not random.difference.measured and math.isnan(random.holm)
    change = np.array([macro('moco', once) - macro('random', once)])
    assert moco.difference.estimate == pytest.approx(change[0])
    assert moco.difference.by_seed == pytest.approx(
        np.subtract(single('moco'), single('random'))
    )
    assert np.mean(moco.difference.by_seed) == pytest.approx(change[0])
    # The variance over patients alone is that of the resamples.
    over_patients = np.subtract(drawn['moco'], drawn['random']).std()
    half = moco.difference.high - moco.difference.estimate
    assert half > 1.96 * over_patients
    assert moco.holm == moco.difference.p > 0
    assert (moco.protocol, moco.patients) == ('toy', 20)
    assert moco.spread > 0 and moco.undefined == ('Hernia',)


def test_unfit_results_of_classifiers_are_refused(tmp_path, classifiers, scores):
    runs, _ = classifiers
    write_result(tmp_path / 'volumes', scores[0])
    with pytest.raises(UserError, match='AUROC .*moco.*Dice .*volumes.*two tables'):
        results.summarize([*runs, Run('linear', 'moco', (tmp_path / 'volumes',))])
    write_predictions(tmp_path / 'other', 0, 0.1, labels_seed=1)
    other = Run('finetune', 'other', (tmp_path / 'other',), 0.1)
    with pytest.raises(
        UserError,
        match=r'other .*random.* labels .*\[.*one protocol',
    ):
        results.summarize([*runs, other], 'random')
    with pytest.raises(UserError, match='not pooled for classification'):
        results.pool_results(runs[0].folders, tmp_path / 'pooled')


WRITTEN_BEFORE = Path(__file__).parents[1] / 'data/results'


@pytest.mark.parametrize('kind, seeds', [('volumes', 2), ('images', 2), ('pooled', 1)])
def test_results_of_before_give_the_same_table(kind, seeds):
    """Every number but the intervals, which did not know seeds then."""
    folder = WRITTEN_BEFORE / kind
    runs = [
        Run(
            'linear',
            name,
            tuple(folder / f'{name}-{seed}' for seed in range(seeds))
            if seeds > 1
            else (folder / name,),
        )
        for name in ('random', 'moco')
    ]
    rows = results.summarize(runs, 'random')
    found, before = (
        pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
        for text in (results.to_csv(rows), (folder / 'table.csv').read_text())
    )
    same = [name for name in before if not name.endswith(('_low', '_high'))]
    assert len(same) < len(before.columns) and set(before) < set(found)
    pd.testing.assert_frame_equal(found[same], before[same])


def test_pooling_results_of_before_gives_the_same_files(tmp_path):
    for name in ('random', 'moco'):
        folds = [WRITTEN_BEFORE / f'folds/{name}-{fold}' for fold in (0, 1)]
        results.pool_results(folds, tmp_path / name)
        before = WRITTEN_BEFORE / 'pooled' / name
        assert (tmp_path / name / 'cases.csv').read_text() == (
            before / 'cases.csv'
        ).read_text()
        found, expected = (results.read_metrics(f) for f in (tmp_path / name, before))
        for content in (found, expected):
            for split in content['splits']:
                del split['folder']
            # Those of the folds were told of all patients together.
            del content['interval'], content['notes']
        assert 'Student' in results.read_metrics(tmp_path / name)['interval']['kind']
        assert _without_ends(found) == _without_ends(expected)


def _without_ends(content):
    """Intervals of few patients have become wider since."""
    if isinstance(content, dict):
        ends = ('low', 'high', 'ci_low', 'ci_high')
        return {k: _without_ends(v) for k, v in content.items() if k not in ends}
    return content


def test_long_frame_holds_every_score():
    volumes = WRITTEN_BEFORE / 'volumes'
    runs = [
        Run(
            'linear', 'moco', tuple(WRITTEN_BEFORE / f'volumes/moco-{n}' for n in '01')
        ),
        Run('finetune', 'moco', (WRITTEN_BEFORE / 'images/moco-0',), 0.1),
    ]
    frame = results.collect_scores(runs)
    assert tuple(frame) == COLUMNS
    found = frame[(frame['group'] == 'linear') & (frame['seed'] == 1)]
    assert set(found['fraction']) == {1.0} and set(found['split']) == {'made-up'}
    with (volumes / 'moco-1/cases.csv').open(newline='') as file:
        for row in csv.DictReader(file):
            for score in ('dice', 'hd95', 'relative_volume_error'):
                (value,) = found['value'][
                    (found['case'] == row['case_id'])
                    & (found['class'] == row['class'])
                    & (found['metric'] == score)
                ]
                expected = float(row[score]) if row[score] else math.nan
                assert value == pytest.approx(expected, abs=0, nan_ok=True)
    images = frame[frame['group'] == 'finetune'].set_index(['class', 'metric'])['value']
    metrics = results.read_metrics(WRITTEN_BEFORE / 'images/moco-0')
    assert images['mean', 'auroc'] == metrics['mean']['auroc']['mean']
    assert images['Mass', 'f1'] == metrics['per_class']['Mass']['f1']['mean']
    assert math.isnan(images['Hernia', 'auroc'])
