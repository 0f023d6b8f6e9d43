import csv
import dataclasses
import json

import numpy as np
import pytest

from medssl_mm.analysis.probing import difference, run_probe, summarize
from medssl_mm.results.probes import (
    draw_probes,
    markdown_table,
    print_probes,
    write_probes,
)
from tests.analysis.test_probing import changed, made


def test_figure():
    result = probes()
    figure = draw_probes(result)
    assert [axes.get_title() for axes in figure.axes] == [
        '10 % of the labels',
        '100 % of the labels',
    ] * 2
    assert 'and seeds or draws; dots: single ones' in figure.get_supxlabel()
    assert [axes.get_ylabel() for axes in figure.axes] == [
        'macro AUROC',
        '',
        'macro F1',
        '',
    ]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ['moco', 'mse']
    full = [p for p in result if p.fraction == 1 and p.checkpoint == 'mse']
    line = figure.axes[1].containers[1].lines[0]
    assert list(line.get_ydata()) == [p.auroc.estimate for p in full]
    # Several draws: their mean.
    part = [p for p in result if p.fraction == 0.1 and p.checkpoint == 'mse']
    line = figure.axes[2].containers[1].lines[0]
    assert list(line.get_ydata()) == pytest.approx(
        [
            np.mean([p.f1.estimate for p in part if p.place == place])
            for place in ('stage1', 'stage2')
        ]
    )


def probes():
    result = []
    features, data = made(multi_label=False)
    for name in ('moco', 'mse'):
        for place in ('stage1', 'stage2'):
            for fraction, seed in ((0.1, 0), (0.1, 1), (1.0, None)):
                noisy = {
                    n: v + len(result) * np.random.default_rng(0).normal(size=v.shape)
                    for n, v in features.items()
                }
                result.append(
                    run_probe(
                        noisy,
                        data,
                        name,
                        place,
                        fraction,
                        seed,
                        strengths=(0.1, 1.0),
                        samples=20,
                    )
                )
    return result


def test_markdown_compares_with_the_baseline():
    result = probes()
    rows = {(r.checkpoint, r.place, r.fraction): r for r in summarize(result)}
    text = markdown_table(result, 'moco')
    titles = [line for line in text.splitlines() if line.startswith('macro')]
    assert titles == [
        f'macro {kind}, {share} % of the labels'
        for kind in ('AUROC', 'F1')
        for share in (10, 100)
    ]
    lines = [line for line in text.splitlines() if line.startswith('| mse')]
    row = rows['mse', 'stage2', 1.0]
    gain = difference(row, rows['moco', 'stage2', 1.0], 'f1')
    assert lines[3].endswith(
        f' {row.f1.estimate:.3f} [{row.f1.low:.3f}, {row.f1.high:.3f}], '
        f'{gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] |'
    )
    assert '+' not in ''.join(
        line for line in text.splitlines() if line.startswith('| moco')
    )
    assert ', +' not in markdown_table(result) and '| mse |' in text
    assert text.endswith('chose the smallest or the largest strength.\n')


def test_files(tmp_path):
    features, data = made()
    result = [
        run_probe(
            features,
            changed(data, 'test', 0, True),
            'a',
            'stage1',
            strengths=(0.1, 1.0),
            samples=0,
        )
    ]
    paths = write_probes(result, tmp_path / 'out', dict(config='c.py'))
    assert sorted(tmp_path.glob('out/*')) == sorted(paths)
    content = json.loads(paths[0].read_text())
    assert content['config'] == 'c.py' and 'largest macro' in content['policy']
    probe = content['probes'][0]
    assert probe['auroc'] == dict(value=result[0].auroc.estimate, low=None, high=None)
    assert probe['left_out'] == {'class 0': '60 of 60 test images'}
    with paths[1].open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [(row['score'], row['class']) for row in rows] == [
        ('auroc', 'mean'),
        ('auroc', 'class 1'),
        ('auroc', 'class 2'),
    ]
    assert float(rows[0]['value']) == pytest.approx(result[0].auroc.estimate, abs=1e-6)
    assert rows[0]['low'] == '' and rows[0]['fraction_seed'] == ''
    assert paths[2].read_bytes()[:4] == b'\x89PNG'
    assert f'| a | {result[0].auroc.estimate:.3f} |' in paths[3].read_text()
    (mean,) = content['means']
    assert mean['auroc']['value'] == result[0].auroc.estimate
    assert 'auroc_difference' not in mean
    result.append(dataclasses.replace(result[0], checkpoint='b'))
    paths = write_probes(result, tmp_path / 'two', {}, 'a')
    means = json.loads(paths[0].read_text())['means']
    assert 'auroc_difference' not in means[0]
    assert means[1]['auroc_difference']['value'] == 0


def test_table(capsys):
    from rich.console import Console

    result = probes()
    print_probes(result, Console(width=150))
    out = capsys.readouterr().out
    assert 'macro F1' in out and ' fits ' in out
    full = next(p.auroc for p in result if p.fraction == 1)
    assert f'{full.estimate:.3f} [{full.low:.3f}, {full.high:.3f}]' in out
    part = summarize(result)[0]
    assert len(part.probes) == 2
    assert (
        f'{part.auroc.estimate:.3f} [{part.auroc.low:.3f}, '
        f'{part.auroc.high:.3f}] │ {part.spread("auroc"):.3f}'
    ) in out
    print_probes(result, Console(width=190), 'moco')
    out = capsys.readouterr().out
    gain = difference(summarize(result)[4], summarize(result)[0], 'auroc')
    assert 'against moco' in out
    assert f'{gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]' in out
    print_probes([p for p in result if p.fraction == 1], Console(width=150))
    out = capsys.readouterr().out
    assert 'strength' in out and ' fits ' not in out
