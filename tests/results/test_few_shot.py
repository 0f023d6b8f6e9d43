import json

import numpy as np
import pytest

from medssl_mm.analysis.few_shot import FewShot
from medssl_mm.results.few_shot import (
    draw_few_shot,
    few_shot_table,
    write_few_shot,
)


def results():
    rng = np.random.default_rng(0)
    return [
        FewShot(name, place, shots, rng.normal(mean, 0.1, 100), f'd{shots}', number)
        for name, number, mean in (
            ('random', 0, 0.5),
            ('moco', 0, 0.6),
            ('moco', 1, 0.7),
        )
        for place in ('stage3', 'stage4')
        for shots in (20, 5)
    ]


def test_table_puts_the_networks_of_one_number_of_shots_together():
    table = few_shot_table(results(), 'random')
    assert list(table.columns) == ['shots', 'checkpoint', 'stage3', 'stage4']
    assert list(zip(table['shots'], table['checkpoint'])) == [
        ('5', 'random'),
        ('5', 'moco (2 seeds)'),
        ('20', 'random'),
        ('20', 'moco (2 seeds)'),
    ]
    # Mean of two seeds, in percent, and its difference to the baseline.
    cell = table['stage4'][1]
    found = {
        (r.checkpoint, r.number): r.accuracies
        for r in results()
        if r.place == 'stage4' and r.shots == 5
    }
    mean = (found['moco', 0] + found['moco', 1]).mean() / 2
    assert cell.startswith(f'{100 * mean:.1f} [')
    assert f'{100 * (mean - found["random", 0].mean()):+.1f} [' in cell
    assert '+' not in table['stage4'][0]


def test_figure_has_a_panel_for_each_number_of_shots():
    figure = draw_few_shot(results(), 0.5)
    assert [axes.get_title() for axes in figure.axes] == [
        '5 labelled images per class',
        '20 labelled images per class',
    ]
    line = figure.axes[0].containers[0].lines[0]
    expected = [
        r.accuracies.mean()
        for r in results()
        if r.checkpoint == 'random' and r.shots == 5
    ]
    assert list(line.get_ydata()) == pytest.approx(expected)


def test_files(tmp_path):
    paths = write_few_shot(results(), tmp_path, dict(seed=0), 2, 'random', ['a note'])
    assert [path.name for path in paths] == [
        f'few_shot.{end}' for end in ('json', 'csv', 'png', 'md')
    ]
    content = json.loads(paths[0].read_text())
    assert content['seed'] == 0 and content['notes'] == ['a note']
    assert len(content['means']) == 8 and len(content['results']) == 12
    assert {m['checkpoint'] for m in content['means'] if 'difference' in m} == {'moco'}
    assert 'a note' in paths[3].read_text()
