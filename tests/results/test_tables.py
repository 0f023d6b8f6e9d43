import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from medssl_mm import results
from medssl_mm.errors import UserError
from medssl_mm.results import Run
from medssl_mm.texts import for_markdown
from tests.results.made import write_folds, write_predictions, write_result


def test_table_of_a_cross_validation(tmp_path, scores):
    runs = []
    for name, values in zip(('random', 'moco'), scores):
        results.pool_results(
            write_folds(tmp_path / name, values), tmp_path / name / 'all'
        )
        runs.append(Run('linear', name, (tmp_path / name / 'all',)))
    rows = results.summarize(runs, 'random')
    assert rows[1].difference.estimate == pytest.approx((scores[1] - scores[0]).mean())
    text = results.caption_of(rows)
    assert 'Protocol set-2fold (split ' in text and '4 test patients' in text
    assert 'over 2 splits' in text and 'One seed per row' in text
    assert next(csv.DictReader(results.to_csv(rows).splitlines()))['splits'] == '2'
    # One fold alone is another protocol.
    alone = Run('linear', 'one', (tmp_path / 'moco/fold1',))
    with pytest.raises(UserError, match='different splits'):
        results.summarize([*runs, alone])


def test_the_caption_says_what_networks_have_seen(tmp_path, scores):
    seen = dict(
        kind='case',
        role='test',
        of=8,
        pretrain=dict(cases=3, further_of_seen_patients=0, names=['a', 'b', 'c']),
        not_known=[],
    )
    runs = []
    for name, values in zip(('random', 'moco'), scores):
        folders = write_folds(tmp_path / name, values)
        for folder in folders if name == 'moco' else ():
            path = folder / 'metrics.json'
            path.write_text(json.dumps({**json.loads(path.read_text()), 'seen': seen}))
        results.pool_results(folders, tmp_path / name / 'all')
        runs.append(Run('linear', name, (tmp_path / name / 'all',)))
    text = results.caption_of(results.summarize(runs, 'random'))
    assert 'linear, moco: seen in pretraining: 6 of 16 test cases (a, b, c' in text
    assert 'linear, random: seen' not in text


def test_csv_and_markdown_hold_the_numbers(tmp_path, scores):
    runs = [
        Run('linear', name, (write_result(tmp_path / name, values),))
        for name, values in zip(('random', 'moco'), scores)
    ]
    rows = results.summarize(runs, 'random')
    entries = list(csv.DictReader(results.to_csv(rows).splitlines()))
    assert float(entries[1]['dice']) == pytest.approx(scores[1].mean(), abs=1e-5)
    assert entries[0]['difference'] == '' and entries[0]['hd95_mm'] == ''
    table = results.to_markdown(results.table_cells(rows))
    assert 'p (Holm)' in table and 'By seed' not in table  # there is one
    assert float(entries[1]['difference_p_holm']) == pytest.approx(
        rows[1].difference.p, rel=1e-4
    )
    assert f'{100 * scores[1].mean():.1f} [' in table
    assert '| +2' in table or '| +1' in table
    assert 'HD95' not in table  # nobody measured it
    assert 'Labelled patients' not in table  # all rows use all of them


def test_wide_table_has_a_column_per_evaluation_and_fraction(tmp_path, scores):
    def run(group, label, values, fraction):
        folder = tmp_path / f'{group}-{label}-{fraction}'
        return Run(group, label, (write_result(folder, values),), fraction)

    low, high = scores
    rows = results.summarize(
        [
            run('linear', 'random', low, 1.0),
            run('linear', 'moco', high, 1.0),
            run('linear', 'moco', low, 0.2),
            run('deep', 'random', high, 1.0),
        ],
        'random',
    )
    found = results.wide_cells(rows)
    cells = found.to_numpy().tolist()
    assert list(found) == ['Initial weights', 'linear', 'linear, 20 % labels', 'deep']
    random, moco = cells
    assert random[0] == 'random' and moco[0] == 'moco'
    assert random[1].startswith(f'{100 * low.mean():.1f} [')
    assert random[1].count('[') == 1  # the baseline has no difference
    change = 100 * (high - low).mean()
    assert re.fullmatch(
        rf'{100 * high.mean():.1f} \[.*\], \{change:+.1f} \[\+.*\], p < 0\.001',
        moco[1],
    )
    assert random[2] == '–' and moco[3] == '–'
    assert moco[2].startswith(f'{100 * low.mean():.1f} [')
    path = next(
        path
        for path in results.write_table(rows, tmp_path, 'T')
        if path.name == 'table-wide.md'
    )
    line = ' | '.join(map(for_markdown, moco))
    assert line in path.read_text(encoding='utf-8')


def test_seeds_are_shown_and_too_few_are_exploratory(tmp_path, scores):
    """Differences of each seed, p after Holm, and what the interval is about."""

    def arm(label, values, seeds):
        folders = [
            write_result(tmp_path / f'{label}-{seed}', values + 0.01 * seed**2 * sign)
            for seed, sign in zip(range(seeds), (1, -1, 1, -1, 1))
        ]
        return Run('linear', label, tuple(folders))

    def table(seeds):
        runs = [
            arm('random', scores[0], seeds),
            arm('moco', scores[1], seeds),
            arm('same', scores[0], seeds),
        ]
        return results.summarize(runs, 'random')

    rows = table(3)
    cells = results.table_cells(rows)
    gain = f'{100 * (scores[1] - scores[0]).mean():+.1f}'
    assert cells['By seed'].tolist() == ['–', ', '.join([gain] * 3), '+0.0, +0.0, +0.0']
    assert rows[1].holm == pytest.approx(min(1, 2 * rows[1].difference.p))
    assert cells['p (Holm)'].tolist()[0] == '–' and rows[2].holm == 1
    text = results.caption_of(rows)
    assert 'over seeds and patients' in text and 'Exploratory: 3 seeds' in text
    assert 'adjusted after Holm' in text
    assert 'Exploratory' not in results.caption_of(table(5))


def test_the_caption_names_differences_of_other_seeds(tmp_path, scores):
    """And scores.csv the seeds themselves."""

    def arm(label, values, seeds):
        folders = [write_result(tmp_path / f'{label}-{seed}', values) for seed in seeds]
        return Run('linear', label, tuple(folders), seeds=seeds)

    runs = [
        arm('random', scores[0], (3, 4)),
        arm('same', scores[1], (3, 4)),
        arm('later', scores[1], (4, 5)),
        arm('other', scores[1], (7, 8)),
    ]
    rows = results.summarize(runs, 'random')
    assert [row.difference.seeds for row in rows] == [(), (3, 4), (4,), ()]
    text = results.caption_of(rows)
    assert (
        'paired by patient and seed (linear, later: of seed 4 alone; linear, other: by '
        'patient alone);' in text
    )
    assert results.collect_scores(runs[2:3])['seed'].unique().tolist() == [4, 5]


def test_a_group_may_be_compared_with_the_baseline_of_another(tmp_path, scores):
    runs = [
        Run('deep', 'moco', (write_result(tmp_path / 'a', scores[0]),)),
        Run('teacher', 'moco', (write_result(tmp_path / 'b', scores[1]),)),
        Run(
            'other',
            'random',
            (write_result(tmp_path / 'c', scores[1]),),
            compared_with='deep',
        ),
    ]
    deep, teacher, other = results.summarize(runs, 'moco')
    assert not deep.difference.measured and not teacher.difference.measured
    assert other.difference.estimate == pytest.approx((scores[1] - scores[0]).mean())
    # The baseline's own weights, too, where the evaluation is what differs.
    (_, same) = results.summarize(
        [runs[0], replace(runs[1], compared_with='deep')], 'moco'
    )
    assert same.difference.estimate == pytest.approx((scores[1] - scores[0]).mean())
    assert 'alone' not in results.caption_of([deep, other])


def test_the_time_of_pretraining_has_a_column(tmp_path, scores):
    runs = [
        Run('linear', name, (write_result(tmp_path / name, values),))
        for name, values in zip(('random', 'moco', 'local'), (*scores, scores[1]))
    ]
    rows = results.summarize(runs, 'moco')
    assert 'Time of pretraining' not in results.table_cells(rows)
    rows = [rows[0], replace(rows[1], cost=1.0), replace(rows[2], cost=1.523)]
    for cells in (results.table_cells(rows), results.wide_cells(rows)):
        assert cells['Time of pretraining'].tolist() == ['–', '1.00 x', '1.52 x']
    entries = list(csv.DictReader(results.to_csv(rows).splitlines()))
    assert [entry['pretraining_time_ratio'] for entry in entries] == ['', '1', '1.523']


def test_scores_are_drawn_against_the_length_of_training(tmp_path, scores):
    def run(length, label, values, fraction=1.0):
        folder = write_result(tmp_path / f'{length}-{label}-{fraction}', values)
        return Run(f'deep {length}', label, (folder,), fraction, iterations=length)

    runs = [run(500, 'random', scores[0]), run(1000, 'random', scores[1])]
    runs += [run(1000, 'moco', scores[1]), run(500, 'moco', scores[0], 0.2)]
    paths = results.write_table(results.summarize(runs), tmp_path / 'out', 'T')
    assert 'curves.png' in [path.name for path in paths]
    figure = results.figures.plot_lengths(results.summarize(runs), 'T')
    every, few = figure.axes
    random, moco = (line.lines[0].get_ydata() for line in every.containers)
    np.testing.assert_allclose(random, [scores[0].mean(), scores[1].mean()], atol=1e-6)
    np.testing.assert_allclose(moco, [np.nan, scores[1].mean()], atol=1e-6)
    assert few.get_title('left') == '20 % of the labels'
    assert [text.get_text() for text in few.get_xticklabels()] == ['500', '1000']
    # One length is no curve.
    paths = results.write_table(results.summarize(runs[:1]), tmp_path / 'one', 'T')
    assert 'curves.png' not in [path.name for path in paths]


def test_images_that_are_patients_of_their_own_are_called_images(tmp_path):
    """Where no patients are named; equal images count once."""

    def caption(name, **settings):
        folder = tmp_path / name
        write_predictions(folder, 0, 1.0, **settings)
        rows = results.summarize([Run('probe', 'random', (folder,))])
        return results.caption_of(rows), json.loads(
            (folder / 'metrics.json').read_text()
        )

    text, metrics = caption('named')
    assert '20 test patients.' in text and 'interval over patients' in text
    assert metrics['interval']['resampled'] == 'patients, with all their images'
    assert not any('of its own' in note for note in metrics['notes'])
    text, metrics = caption('unnamed', patient='i{:02}', each=1)
    assert '60 test images, each a patient of its own (equal ones once).' in text
    assert 'interval over images' in text and 'patients.' not in text
    assert metrics['interval']['resampled'].startswith('images, each a patient')
    assert any('every image counts as a patient' in note for note in metrics['notes'])
    # Twins: image 1 goes with image 0, as the store of a set without names has it.
    text, _ = caption('twins', patient='i{:02}', each=2)
    assert '30 test images, each a patient of its own' in text
