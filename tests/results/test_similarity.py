import json
import math

import numpy as np

from medssl_mm.analysis.feature_reuse import Kernel, feature_reuse, random_subsets
from medssl_mm.results import write_results
from medssl_mm.results.similarity import (
    draw_layers,
    draw_reuse,
    print_reuse,
    reuse_content,
)
from tests.analysis.test_feature_reuse import made


def results():
    subsets = random_subsets(120, 60, 3, 0)
    return [
        result
        for seed, method in enumerate(('moco', 'mse'))
        for result in feature_reuse(
            method, made(seed=seed), made(seed=seed + 5), Kernel(), subsets
        )
    ]


def test_figure_and_files(tmp_path):
    found = results()
    figure = draw_reuse(found)
    assert [axes.get_title() for axes in figure.axes] == ['linear', 'rbf']
    for name, axes in zip(('linear', 'rbf'), figure.axes):
        lines = [line for line in axes.lines if line.get_marker() == 'o']
        assert [list(line.get_ydata()) for line in lines] == [
            [r.values[name] for r in found if r.method == method]
            for method in ('moco', 'mse')
        ]
        low, high = axes.get_ylim()
        assert all(low < r.values[name] < high for r in found)
    content = dict(value=math.nan, stages=reuse_content(found))
    paths = write_results(tmp_path, {'reuse.json': content, 'reuse.png': figure})
    assert sorted(paths) == sorted(tmp_path.iterdir())
    content = json.loads((tmp_path / 'reuse.json').read_text())
    assert content['value'] is None
    stage = content['stages'][0]
    assert stage['values'] == found[0].values
    assert stage['subsets']['rbf'] == dict(
        mean=found[0].spread('rbf')[0],
        sd=found[0].spread('rbf')[1],
        values=found[0].subsets['rbf'],
    )


def test_heat_map():
    matrix = np.array([[1.0, 0.5, 0.1], [0.4, 0.9, 0.2]])
    figure = draw_layers(
        matrix, (['a', 'b'], ['c', 'd', 'e']), ('one', 'two'), 'rbf_unbiased'
    )
    axes = figure.axes[0]
    assert np.array_equal(axes.images[0].get_array(), matrix)
    assert [t.get_text() for t in axes.get_yticklabels()] == ['a', 'b']
    assert [t.get_text() for t in axes.get_xticklabels()] == ['c', 'd', 'e']
    assert (axes.get_ylabel(), axes.get_xlabel()) == ('one', 'two')
    assert axes.get_ylim()[0] < axes.get_ylim()[1]


def test_table(capsys):
    from rich.console import Console

    found = results()
    print_reuse(found, Kernel(), Console(width=80))
    out = capsys.readouterr().out
    assert '120 images; sigma 0.8 (median distance)' in ' '.join(out.split())
    assert '3 subsets' in out and 'moco' in out and 'stage1' in out
    assert f'{found[1].values["rbf"]:.3f}' in out
    mean, deviation = found[1].spread('linear')
    assert f'{mean:.3f} ({deviation:.3f})' in out
    assert '0.8, 0.8' in out
