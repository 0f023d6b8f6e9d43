import json

import numpy as np
import pandas as pd
import pytest

from medssl_mm.analysis.invariances import Invariance
from medssl_mm.errors import UserError
from medssl_mm.results.invariances import (
    draw_curves,
    draw_invariances,
    invariance_table,
    write_invariances,
)


def results(mode='strict'):
    rng = np.random.default_rng(0)
    return [
        Invariance(
            name,
            transform,
            mode,
            parameters,
            rng.normal(mean, 0.1, (10, len(parameters))),
            rng.uniform(1, 2, (10, len(parameters))),
            rng.normal(0, 0.1, (10, len(parameters))),
            number,
        )
        for name, number, mean in (('a', 0, 0.2), ('b', 0, 0.5), ('b', 1, 0.7))
        for transform, parameters in (
            ('rotation', (90.0, 180.0, 270.0)),
            ('h_flip', (1.0,)),
        )
    ]


def test_table_has_the_mean_over_seeds():
    table = invariance_table(results())
    assert list(table.columns) == ['encoder', 'rotation', 'h_flip']
    assert list(table['encoder']) == ['a', 'b (2 seeds)']
    one, two, three = (r for r in results() if r.transform == 'h_flip')
    assert table['h_flip'][0] == one.mean.text(2)
    mean = (two.mean.estimate + three.mean.estimate) / 2
    assert table['h_flip'][1] == f'{mean:.2f}'


def test_bars_and_curves():
    figure = draw_invariances(results())
    bars = figure.axes[0].patches
    assert len(bars) == 4
    assert bars[0].get_height() == pytest.approx(results()[0].mean.estimate)
    curves = draw_curves(results())
    assert [axes.get_title() for axes in curves.axes] == ['rotation']
    assert curves.axes[0].get_xlabel() == 'degrees'
    np.testing.assert_allclose(
        curves.axes[0].lines[0].get_xydata(),
        np.column_stack([(90, 180, 270), results()[0].cosine.mean(0)]),
    )
    assert draw_curves([r for r in results() if r.transform == 'h_flip']) is None


def test_files(tmp_path):
    paths = write_invariances(
        results(), tmp_path, dict(seed=3, dataset='eyes'), ['a note']
    )
    assert [path.name for path in paths] == [
        'invariances.json',
        'invariances.csv',
        'invariances.md',
        'invariances_measures.csv',
        'invariances.png',
        'invariances_curves.png',
    ]
    content = json.loads(paths[0].read_text())
    assert content['mode'] == 'strict' and content['seed'] == 3
    assert content['results'][0]['cosine_by_parameter'] == pytest.approx(
        results()[0].cosine.mean(0).tolist()
    )
    assert 'a note' in paths[2].read_text()
    measures = pd.read_csv(paths[3])
    assert list(measures) == ['encoder', 'measure', 'value', 'dataset', 'mode']
    assert set(measures['dataset']) == {'eyes'} and len(measures) == 4
    flips = [r.mean.estimate for r in results() if r.transform == 'h_flip']
    found = measures[measures['measure'] == 'invariance, h_flip']['value']
    # Of two seeds the mean.
    assert found.tolist() == pytest.approx([flips[0], (flips[1] + flips[2]) / 2])
    assert paths[1].read_text().splitlines()[1].startswith('strict,a,0,rotation,10,3,')


def test_modes_are_not_mixed(tmp_path):
    with pytest.raises(UserError, match='strict and of compat'):
        write_invariances([*results(), *results('compat')], tmp_path, {})
    assert not list(tmp_path.iterdir())
