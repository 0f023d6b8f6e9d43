"""Result tables and the HTML report, against hand-made evaluations."""

import csv
import json
import math
import re

import numpy as np
import pytest

from medssl_mm import reporting
from medssl_mm.errors import UserError
from medssl_mm.reporting import Run

CLASSES = ('liver', 'spleen')


def write_result(
    folder, dice, split_hash='abc', data_root=None, protocol='holdout', first_case=0
):
    """An evaluation folder; ``dice`` is (cases, classes), NaN: not counted."""
    folder.mkdir(parents=True, exist_ok=True)
    dice = np.asarray(dice, float)
    with (folder / 'cases.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['case_id', 'patient_id', 'class', 'dice', 'hd95'])
        for case, values in enumerate(dice, first_case):
            for name, value in zip(CLASSES, values):
                text = '' if np.isnan(value) else repr(float(value))
                writer.writerow([f'case{case}', f'p{case // 2}', name, text, ''])
    means = np.nanmean(dice, axis=0)
    (folder / 'metrics.json').write_text(
        json.dumps(
            dict(
                protocol=protocol,
                split_hash=split_hash,
                cases=len(dice),
                patients=(len(dice) + 1) // 2,
                data_root=data_root and str(data_root),
                mean=dict(dice=dict(mean=float(means.mean()))),
                per_class={
                    name: dict(dice=dict(mean=float(value)))
                    for name, value in zip(CLASSES, means)
                },
                interval=dict(kind='95 % percentile bootstrap', resampled='patients'),
                policy='both empty: not counted',
                notes=[],
                versions={'monai': '1.0', 'torch': '2.0'},
            )
        )
    )
    return folder


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    low = rng.uniform(0.3, 0.6, (8, 2))
    return low, np.clip(low + 0.2 + rng.normal(0, 0.02, (8, 2)), 0, 1)


def test_seed_mean_is_mean_of_class_means_of_seeds(tmp_path):
    first = [[0.2, 0.4], [np.nan, 0.8]]
    second = [[0.4, 0.4], [np.nan, 0.4]]
    folders = [
        write_result(tmp_path / name, values)
        for name, values in (('a', first), ('b', second))
    ]
    (mean, low, high), seeds, patients = reporting.seed_mean(
        [folder / 'cases.csv' for folder in folders]
    )
    # Per seed: liver 0.2, spleen 0.6; liver 0.4, spleen 0.4.
    assert seeds == pytest.approx([0.4, 0.4])
    assert mean == pytest.approx(0.4)
    assert patients == 1
    # Both cases belong to the only patient: nothing can vary.
    assert low == pytest.approx(mean) and high == pytest.approx(mean)


def test_interval_agrees_with_a_plain_bootstrap(tmp_path, scores):
    folder = write_result(tmp_path, scores[0])
    (_, low, high), _, _ = reporting.seed_mean([folder / 'cases.csv'], samples=4000)
    rng = np.random.default_rng(1)
    means = []
    for _ in range(4000):
        drawn = rng.integers(0, 4, 4)
        cases = np.concatenate([[2 * p, 2 * p + 1] for p in drawn])
        means.append(scores[0][cases].mean())
    expected = np.percentile(means, [2.5, 97.5])
    assert (low, high) == pytest.approx(tuple(expected), abs=5e-3)


def test_difference_is_paired(tmp_path, scores):
    """Patients differ a lot, the gain little: the pairing must show it."""
    runs = [
        Run('linear', name, (write_result(tmp_path / name, values),))
        for name, values in zip(('random', 'moco'), scores)
    ]
    random, moco = reporting.summarize(runs, 'random')
    assert random.difference is None
    mean, low, high = moco.difference
    assert mean == pytest.approx((scores[1] - scores[0]).mean())
    assert 0.15 < low < mean < high < 0.25
    assert high - low < (moco.score[2] - moco.score[1])


def test_spread_over_seeds(tmp_path, scores):
    folders = tuple(
        write_result(tmp_path / str(seed), scores[0] + shift)
        for seed, shift in enumerate((0.0, 0.1, 0.2))
    )
    (row,) = reporting.summarize([Run('linear', 'random', folders)])
    assert row.spread == pytest.approx(0.1)
    assert row.score[0] == pytest.approx(scores[0].mean() + 0.1)


def test_refuses_results_of_different_splits(tmp_path, scores):
    runs = [
        Run('linear', 'a', (write_result(tmp_path / 'a', scores[0]),)),
        Run(
            'linear', 'b', (write_result(tmp_path / 'b', scores[1], split_hash='xyz'),)
        ),
    ]
    with pytest.raises(UserError, match='different splits'):
        reporting.summarize(runs)


def write_folds(root, dice):
    """Two folds of a set of eight cases, with 2 and 6 of them."""
    parts = ((0, dice[:2]), (2, dice[2:]))
    return [
        write_result(
            root / f'fold{number}',
            values,
            f'hash{number}',
            protocol=f'set-2fold-fold{number}',
            first_case=first,
        )
        for number, (first, values) in enumerate(parts)
    ]


def test_pooled_folds_equal_one_evaluation_of_all_cases(tmp_path, scores):
    scores[0][3, 1] = np.nan
    reporting.pool_results(write_folds(tmp_path, scores[0]), tmp_path / 'all')
    whole = write_result(tmp_path / 'whole', scores[0])
    assert (tmp_path / 'all/cases.csv').read_text().split() == (
        whole / 'cases.csv'
    ).read_text().split()
    pooled = reporting.read_metrics(tmp_path / 'all')
    expected = reporting.read_metrics(whole)
    for name in CLASSES:
        assert pooled['per_class'][name]['dice']['mean'] == pytest.approx(
            expected['per_class'][name]['dice']['mean']
        )
    assert (pooled['cases'], pooled['patients']) == (8, 4)
    assert [split['split_hash'] for split in pooled['splits']] == ['hash0', 'hash1']
    # The interval is that of the tables.
    interval, _, _ = reporting.seed_mean([whole / 'cases.csv'])
    found = pooled['mean']['dice']
    assert (found['mean'], found['low'], found['high']) == pytest.approx(interval)


def test_table_of_a_cross_validation(tmp_path, scores):
    runs = []
    for name, values in zip(('random', 'moco'), scores):
        reporting.pool_results(
            write_folds(tmp_path / name, values), tmp_path / name / 'all'
        )
        runs.append(Run('linear', name, (tmp_path / name / 'all',)))
    rows = reporting.summarize(runs, 'random')
    assert rows[1].difference[0] == pytest.approx((scores[1] - scores[0]).mean())
    text = reporting.caption_of(rows)
    assert 'Protocol set-2fold (split ' in text and '4 test patients' in text
    assert 'over 2 splits' in text and 'One seed per row' in text
    assert next(csv.DictReader(reporting.to_csv(rows).splitlines()))['splits'] == '2'
    # One fold alone is another protocol.
    alone = Run('linear', 'one', (tmp_path / 'moco/fold1',))
    with pytest.raises(UserError, match='different splits'):
        reporting.summarize([*runs, alone])


def test_pooling_does_not_depend_on_the_order(tmp_path, scores):
    folders = write_folds(tmp_path, scores[0])
    for name, order in (('a', folders), ('b', folders[::-1])):
        reporting.pool_results(order, tmp_path / name)
    first, second = (reporting.read_metrics(tmp_path / n) for n in 'ab')
    assert first['split_hash'] == second['split_hash']
    assert first['mean'] == second['mean']


def test_refuses_folds_that_overlap(tmp_path, scores):
    folders = write_folds(tmp_path, scores[0])
    folders.append(write_result(tmp_path / 'again', scores[0][:2], first_case=6))
    with pytest.raises(UserError, match=r'case case6 is in .*fold1.*again'):
        reporting.pool_results(folders, tmp_path / 'all')
    # Another case of a patient of fold 0.
    folders[2] = write_result(tmp_path / 'c', scores[0][:1], first_case=8)
    text = (folders[2] / 'cases.csv').read_text()
    (folders[2] / 'cases.csv').write_text(text.replace('p4', 'p0'))
    with pytest.raises(UserError, match='patient p0 is in .*must not overlap'):
        reporting.pool_results(folders, tmp_path / 'all')
    assert not (tmp_path / 'all').exists()


def test_refuses_folds_that_are_missing_or_unlike(tmp_path, scores):
    folders = write_folds(tmp_path, scores[0])
    with pytest.raises(UserError, match=r'fold2.*does not exist'):
        reporting.pool_results([*folders, tmp_path / 'fold2'], tmp_path)
    other = write_result(tmp_path / 'other', scores[0], data_root='elsewhere')
    with pytest.raises(UserError, match='data elsewhere and None'):
        reporting.pool_results([*folders, other], tmp_path / 'all')


def test_refuses_a_baseline_that_is_not_there(tmp_path, scores):
    run = Run('linear', 'a', (write_result(tmp_path, scores[0]),))
    with pytest.raises(UserError, match="'random'.*baseline.*'a'"):
        reporting.summarize([run], 'random')


def test_missing_or_foreign_metrics_are_named(tmp_path):
    with pytest.raises(UserError, match=r'metrics\.json does not exist'):
        reporting.read_metrics(tmp_path)
    (tmp_path / 'metrics.json').write_text('{"mean": 1}')
    with pytest.raises(UserError, match='not a result of'):
        reporting.read_metrics(tmp_path)


def test_csv_and_markdown_hold_the_numbers(tmp_path, scores):
    runs = [
        Run('linear', name, (write_result(tmp_path / name, values),))
        for name, values in zip(('random', 'moco'), scores)
    ]
    rows = reporting.summarize(runs, 'random')
    entries = list(csv.DictReader(reporting.to_csv(rows).splitlines()))
    assert float(entries[1]['dice']) == pytest.approx(scores[1].mean(), abs=1e-5)
    assert entries[0]['difference'] == '' and entries[0]['hd95_mm'] == ''
    table = reporting.to_markdown(*reporting.table_cells(rows))
    assert f'{100 * scores[1].mean():.1f} [' in table
    assert '| +2' in table or '| +1' in table
    assert 'HD95' not in table  # nobody measured it
    assert 'Labelled patients' not in table  # all rows use all of them


def test_wide_table_has_a_column_per_evaluation_and_fraction(tmp_path, scores):
    def run(group, label, values, fraction):
        folder = tmp_path / f'{group}-{label}-{fraction}'
        return Run(group, label, (write_result(folder, values),), fraction)

    low, high = scores
    rows = reporting.summarize(
        [
            run('linear', 'random', low, 1.0),
            run('linear', 'moco', high, 1.0),
            run('linear', 'moco', low, 0.2),
            run('deep', 'random', high, 1.0),
        ],
        'random',
    )
    header, cells = reporting.wide_cells(rows)
    assert header == ['Initial weights', 'linear', 'linear, 20 % labels', 'deep']
    random, moco = cells
    assert random[0] == 'random' and moco[0] == 'moco'
    assert random[1].startswith(f'{100 * low.mean():.1f} [')
    assert random[1].count('[') == 1  # the baseline has no difference
    change = 100 * (high - low).mean()
    assert re.fullmatch(
        rf'{100 * high.mean():.1f} \[.*\], \{change:+.1f} \[\+.*\]', moco[1]
    )
    assert random[2] == '–' and moco[3] == '–'
    assert moco[2].startswith(f'{100 * low.mean():.1f} [')
    path = next(
        path
        for path in reporting.write_table(rows, tmp_path, 'T')
        if path.name == 'table-wide.md'
    )
    assert ' | '.join(moco) in path.read_text(encoding='utf-8')


def test_curves_of_a_resumed_run_are_joined(tmp_path):
    for folder, lines in (
        (
            '20240101_1',
            [
                '{"loss": 3.0, "step": 10}',
                '{"loss": 2.0, "step": 20}',
                '{"loss": 1.9, "st',
            ],
        ),
        (
            '20240102_1',
            ['{"loss": 2.5, "step": 20}', '{"volume/mDice": 0.5, "step": 20}'],
        ),
    ):
        log = tmp_path / folder / 'vis_data'
        log.mkdir(parents=True)
        (log / 'scalars.json').write_text('\n'.join(lines))
    curves = reporting.read_scalars(tmp_path)
    np.testing.assert_array_equal(curves['loss'], [[10, 3.0], [20, 2.5]])
    np.testing.assert_array_equal(curves['volume/mDice'], [[20, 0.5]])
    with pytest.raises(UserError, match=r'scalars\.json'):
        reporting.read_scalars(tmp_path / 'absent')


def test_each_loss_term_has_its_own_panel_and_chance_level():
    def points(*values):
        return np.array([[10 * i, value] for i, value in enumerate(values)])

    local = 'stage3_local_info_nce'
    moco = {
        'loss': points(6.0, 5.0),
        'loss_contrastive': points(6.0, 5.0),
        'chance_level': points(5.55, 5.55),
        'contrastive_top1': points(0.1, 0.2),
    }
    both = {
        **moco,
        'loss': points(8.0, 7.5),
        f'loss_{local}': points(2.0, 1.5),
        f'{local}_chance_level': points(2.1, 2.2),
        'loss_stage4_feature_mse': points(0.1, 0.1),
    }
    labels = {'loss': points(2.0, 1.0), 'volume/mDice': points(0.1, 0.6)}
    panels = {
        panel.title: panel
        for panel in reporting.curve_panels({'MoCo': moco, 'local': both})
    }
    assert list(panels) == [
        'loss_contrastive',
        f'loss_{local}',
        'loss_stage4_feature_mse',
        'score',
    ]
    assert [run for run, _, _ in panels['loss_contrastive'].lines] == ['MoCo', 'local']
    assert [run for run, _, _ in panels[f'loss_{local}'].lines] == ['local']
    # Drawn once, though both runs log it; each term beside its own only.
    (chance,) = panels['loss_contrastive'].chance
    np.testing.assert_array_equal(chance, moco['chance_level'])
    (chance,) = panels[f'loss_{local}'].chance
    np.testing.assert_array_equal(chance, both[f'{local}_chance_level'])
    assert not panels['loss_stage4_feature_mse'].chance
    assert [label for _, label, _ in panels['score'].lines] == [
        'MoCo (contrastive_top1)',
        'local (contrastive_top1)',
    ]
    total, score = reporting.curve_panels({'linear': labels})
    assert (total.title, score.title) == ('loss', 'score')
    assert not total.chance
    with pytest.raises(UserError, match='neither a loss nor a score'):
        reporting.curve_panels({'empty': {'lr': points(0.1)}})


def test_window_and_blank_slices():
    image = np.array([[-1000, -160, 40, 240, 3000]], np.int16)
    np.testing.assert_allclose(
        reporting.display_image(image, 'HU'), [[0, 0, 0.5, 1, 1]]
    )
    assert (reporting.display_image(np.full((3, 3), 7), 'arbitrary') == 0).all()


def test_paint_labels_leaves_background_alone():
    grey = np.full((1, 3), 0.5, np.float32)
    labels = np.array([[0, 1, 255]], np.uint8)
    picture = reporting.paint_labels(grey, labels, [(0, 0, 0), (255, 0, 0)])
    np.testing.assert_allclose(
        picture[0], [[0.5, 0.5, 0.5], [0.75, 0.25, 0.25], [0.5, 0.5, 0.5]]
    )


def test_cases_are_chosen_by_rank(tmp_path):
    dice = np.linspace(0.9, 0.1, 5)[:, None].repeat(2, axis=1)
    dice[2] = np.nan  # nothing counted in it: no rank
    folder = write_result(tmp_path, dice)
    assert reporting.choose_cases(folder / 'cases.csv', 2) == ['case0', 'case4']
    assert reporting.choose_cases(folder / 'cases.csv', 9) == [
        'case0',
        'case1',
        'case3',
        'case4',
    ]


@pytest.fixture
def store(tmp_path):
    from medssl_mm.store import StoreWriter

    rng = np.random.default_rng(0)
    writer = StoreWriter.create(
        tmp_path / 'store', 'toy', 'CT', 'HU', ['background', *CLASSES]
    )
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    for case in range(3):
        label = np.zeros((3, 20, 16), np.uint8)
        label[1, 2:9, 3:8], label[1, 12:16, 8:12] = 1, 2
        image = rng.normal(40, 20, label.shape).astype(np.int16)
        writer.add_case(
            f'case{case}',
            image,
            label,
            patient_id=f'p{case}',
            spacing=(5.0, 2.0, 2.0),
            affine=affine,
            source_affine=affine,
            source_shape=(16, 20, 3),
            source_orientation='LPS',
        )
    return writer.finish()


def test_prediction_returns_in_the_orientation_of_the_store(tmp_path, store):
    from medssl_mm.evaluation.label_nifti import write_label_nifti

    case = store.case('case0')
    label = store.read_label_volume('case0')
    (tmp_path / 'predictions').mkdir()
    assert reporting.read_prediction(tmp_path, case) is None
    write_label_nifti(label, case, tmp_path / 'predictions/case0.nii.gz')
    np.testing.assert_array_equal(reporting.read_prediction(tmp_path, case), label)


def test_report_is_complete_and_self_contained(tmp_path, store, scores):
    from medssl_mm.evaluation.label_nifti import write_label_nifti

    runs = []
    for name, values in zip(('random', 'Mo<Co'), scores):
        folder = write_result(
            tmp_path / name.strip('<'), values[:3], data_root=store.root
        )
        (folder / 'predictions').mkdir()
        for case_id in store.case_ids:
            write_label_nifti(
                store.read_label_volume(case_id),
                store.case(case_id),
                folder / 'predictions' / f'{case_id}.nii.gz',
            )
        runs.append(Run('linear', name, (folder,)))
    log = tmp_path / 'train' / '1' / 'vis_data'
    log.mkdir(parents=True)
    (log / 'scalars.json').write_text(
        '\n'.join(
            json.dumps(
                dict(
                    step=i,
                    loss=9 - i / 9,
                    loss_contrastive=9 - i / 9,
                    chance_level=math.log(65),
                )
            )
            for i in range(1, 30)
        )
    )
    page = tmp_path / 'out' / 'report.html'
    rows = reporting.build_report(
        page,
        runs,
        title='A <b>title',
        baseline='random',
        curves={'pretraining': tmp_path / 'train'},
        commands=['run & go'],
    )
    text = page.read_text(encoding='utf-8')
    assert len(rows) == 2
    assert text.count('data:image/png;base64,') == 4
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    assert 'http' not in re.sub('base64,[^"]+', '', text)
    for expected in (
        'A &lt;b&gt;title',
        'Mo&lt;Co',
        'run &amp; go',
        'both empty: not counted',
        'abc',
        'monai 1.0',
    ):
        assert expected in text
    assert not list(page.parent.glob('.*'))  # no temporary file is left


def test_report_without_images_has_no_overlays(tmp_path, scores):
    run = Run('linear', 'random', (write_result(tmp_path / 'a', scores[0]),))
    reporting.build_report(tmp_path / 'r.html', [run], title='t')
    assert 'Predictions' not in (tmp_path / 'r.html').read_text()


def write_predictions(folder, seed, strength, labels_seed=0):
    """Evaluation folder of a classifier; nobody has the third class."""
    from medssl_mm.evaluation.classification_report import (
        ClassificationEvaluation,
        write_classification,
    )
    from medssl_mm.evaluation.classification_scores import Predictions

    targets = np.random.default_rng(labels_seed).random((60, 3)) < 0.4
    targets[:, 2] = False
    noise = np.random.default_rng(100 + seed).random((60, 3))
    values = ((noise + strength * targets) / (1 + strength)).astype('f4')
    predictions = Predictions(
        ('Mass', 'Nodule', 'Hernia'),
        True,
        tuple(f'i{n:02}' for n in range(60)),
        tuple(f'p{n // 3:02}' for n in range(60)),
        targets,
        values.astype(float),
    )
    write_classification(
        ClassificationEvaluation(predictions, 'toy', 'abc', 'data/toy', 0.5, 20, 0),
        folder,
    )
    return predictions


@pytest.fixture
def classifiers(tmp_path):
    """Runs of two methods with two seeds, and their predictions."""
    made, runs = {}, []
    for name, strength in (('random', 0.1), ('moco', 0.6)):
        folders = tuple(tmp_path / f'{name}{seed}' for seed in (0, 1))
        made[name] = [
            write_predictions(folder, 10 * len(name) + seed, strength)
            for seed, folder in enumerate(folders)
        ]
        runs.append(Run('finetune', name, folders, 0.1))
    return runs, made


def test_rows_of_classifiers_equal_a_loop_over_resamples(classifiers):
    from sklearn.metrics import roc_auc_score

    from medssl_mm.evaluation.bootstrap import patient_weights

    runs, made = classifiers
    random, moco = reporting.summarize(runs, 'random', samples=200)

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

    weights = patient_weights(made['moco'][0].patients, 200, seed=0)
    drawn = {name: [macro(name, times) for times in weights] for name in made}
    once = np.ones(60, int)
    for row in (random, moco):
        name = row.run.label
        assert row.score == pytest.approx(
            (macro(name, once), *np.percentile(drawn[name], [2.5, 97.5]))
        )
    assert random.difference is None
    change = np.subtract(drawn['moco'], drawn['random'])
    assert moco.difference == pytest.approx(
        (
            macro('moco', once) - macro('random', once),
            *np.percentile(change, [2.5, 97.5]),
        )
    )
    assert (moco.protocol, moco.patients) == ('toy', 20)
    assert moco.spread > 0 and moco.undefined == ('Hernia',)


def test_table_and_report_of_classifiers(tmp_path, classifiers):
    runs, _ = classifiers
    rows = reporting.build_report(
        tmp_path / 'report.html', runs, title='X-rays', baseline='random'
    )
    page = (tmp_path / 'report.html').read_text()
    assert 'AUROC per class in points' in page and '60 / 20' in page
    assert 'Dice' not in page
    header, cells = reporting.table_cells(rows)
    assert 'AUROC [95 % interval]' in header
    assert not any('HD95' in name for name in header)
    assert cells[1][2] == '10 %'
    text = reporting.caption_of(rows)
    assert 'Area under the ROC curve' in text
    assert 'one value of the class: Hernia.' in text
    reporting.write_table(rows, tmp_path, 'X-rays')
    path = tmp_path / 'table.csv'
    with path.open(newline='') as file:
        entry = next(csv.DictReader(file))
    assert float(entry['auroc']) == pytest.approx(rows[0].score[0], rel=1e-5)
    assert entry['hd95_mm'] == '' and 'dice' not in entry


def test_unfit_results_of_classifiers_are_refused(tmp_path, classifiers, scores):
    runs, _ = classifiers
    write_result(tmp_path / 'volumes', scores[0])
    with pytest.raises(
        UserError, match='one kind of score, got AUROC .* and Dice .*make two tables'
    ):
        reporting.summarize([*runs, Run('linear', 'moco', (tmp_path / 'volumes',))])
    write_predictions(tmp_path / 'other', 0, 0.1, labels_seed=1)
    other = Run('finetune', 'other', (tmp_path / 'other',), 0.1)
    with pytest.raises(
        UserError,
        match='are not of the same labels .differing.*compare runs of one protocol',
    ):
        reporting.summarize([*runs, other], 'random')
    with pytest.raises(UserError, match='not pooled for classification'):
        reporting.pool_results(runs[0].folders, tmp_path / 'pooled')
