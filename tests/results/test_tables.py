import csv
import json
import re

import pytest

from medssl_mm import results
from medssl_mm.errors import UserError
from medssl_mm.results import Run
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
        rf'{100 * high.mean():.1f} \[.*\], \{change:+.1f} \[\+.*\]', moco[1]
    )
    assert random[2] == '–' and moco[3] == '–'
    assert moco[2].startswith(f'{100 * low.mean():.1f} [')
    path = next(
        path
        for path in results.write_table(rows, tmp_path, 'T')
        if path.name == 'table-wide.md'
    )
    assert ' | '.join(moco) in path.read_text(encoding='utf-8')


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
