import dataclasses
import json

import pytest
import torch
from mmengine.config import Config

from medssl_mm.analysis import Spectrum
from medssl_mm.errors import UserError
from medssl_mm.results.spectra import draw_spectra, print_spectra, write_spectra
from tests import tools
from tests.engine.hooks.test_collapse_monitor_hook import HEAD, settings
from tests.models.algorithms.toy import build_ours

FIGURES = dict(
    effective_rank=1.5, rankme=2.0, alpha_req=float('nan'), std_of_l2_normalized=0.1
)
SPECTRA = [
    Spectrum(label, place, 10, values, FIGURES)
    for label, values in (('a', [4.0, 2.0, 0.0]), ('b', [1.0, 1.0, 1.0]))
    for place in ('stage4', 'pooled')
]


def test_figure_has_a_panel_per_place_and_a_line_per_model():
    figure = draw_spectra(SPECTRA)
    names = figure.legends[0].get_texts()
    assert [name.get_text() for name in names] == ['a', 'b']
    panels = figure.axes
    assert [panel.get_title() for panel in panels] == ['stage4', 'pooled']
    for panel in panels:
        assert panel.get_yscale() == 'log'
        first, second = panel.lines
        assert list(first.get_ydata()) == [1, 0.5]  # zero has no logarithm
        assert list(second.get_ydata()) == [1, 1, 1]
        assert first.get_color() != second.get_color()
        assert first.get_label() == '1.5'


def test_seeds_of_a_method_are_one_row_and_one_colour(capsys):
    other = dataclasses.replace(
        SPECTRA[0],
        singular_values=[1.0, 0.2, 0.1],
        figures=dict(FIGURES, effective_rank=2.5),
    )
    figure = draw_spectra([*SPECTRA, other])
    first, second, alone = figure.axes[0].lines
    assert first.get_color() == second.get_color() != alone.get_color()
    legend = figure.axes[0].get_legend()
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ['2.0', '1.5']
    print_spectra([*SPECTRA, other])
    rows = [
        line.split('│')
        for line in capsys.readouterr().out.splitlines()
        if 'stage4' in line
    ]
    assert [row[3].strip() for row in rows] == ['2', '1']
    assert [row[6].strip() for row in rows] == ['2 ± 0.7', '1.5']


def test_stride_and_samples_are_stated(capsys, tmp_path):
    stated = [
        dataclasses.replace(s, stride=8, images=5, normalisation=f'of {s.label}')
        for s in SPECTRA
    ]
    title = draw_spectra(stated).axes[0].get_title()
    assert title == 'stage4, stride 8 px\n10 samples of 5 images'
    print_spectra(stated)
    out = capsys.readouterr().out
    assert out.count('8 px') == 4 and 'of a' in out and 'of b' in out
    write_spectra(stated, tmp_path / 'a')
    first = json.loads((tmp_path / 'a/spectrum.json').read_text())[0]
    assert (first['stride'], first['images'], first['normalisation']) == (8, 5, 'of a')
    stated[1] = dataclasses.replace(stated[1], stride=16)
    with pytest.raises(UserError, match='do not compare: stride'):
        write_spectra(stated, tmp_path / 'b')
    assert not (tmp_path / 'b').exists()


def test_nothing_to_draw_is_an_empty_figure():
    assert draw_spectra([]).axes == []


def test_files(tmp_path):
    write_spectra(SPECTRA, tmp_path / 'out')
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
        'spectrum.json',
        'spectrum.png',
    ]
    content = json.loads((tmp_path / 'out/spectrum.json').read_text())
    assert content[0]['singular_values'] == [4, 2, 0]
    assert content[0]['figures']['alpha_req'] is None


def test_table(capsys):
    print_spectra(SPECTRA)
    out = capsys.readouterr().out
    # All models of one place together, places as they come.
    assert [line.split()[1] for line in out.splitlines() if '1.5' in line] == [
        'stage4'
    ] * 2 + ['pooled'] * 2
    assert 'eff. rank' in out and 'nan' in out and 'LiDAR' not in out


def test_tool_compares_checkpoints(tmp_path):
    """Each of its own model, all on the images of the config."""
    decorrelated = settings(tmp_path / 'run')
    plain = settings(tmp_path / 'run')
    del plain['model']['decorrelation']
    plain['custom_imports']['imports'] = [
        'medssl_mm.registry',
        'tests.engine.hooks.test_collapse_monitor_hook',
    ]
    Config(plain).dump(tmp_path / 'plain.py')
    torch.save(
        dict(
            state_dict=build_ours(decorrelation=HEAD).state_dict(),
            meta=dict(cfg=Config(decorrelated).pretty_text),
        ),
        tmp_path / 'decorr.pth',
    )
    torch.save(dict(state_dict=build_ours(seed=1).state_dict()), tmp_path / 'plain.pth')
    command = [
        'analysis/spectrum.py',
        'random',
        'random-calibrated',
        str(tmp_path / 'plain.pth'),
        str(tmp_path / 'decorr.pth'),
        '--config',
        str(tmp_path / 'plain.py'),
        '--out',
        str(tmp_path / 'out'),
        '--num-samples',
        '6',
        '--stride',
        '16',
        '--views',
        '3',
        '--labels',
        'random',
        'calibrated',
        'plain',
        'decorr',
    ]
    done = tools.run(*command)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / 'out/spectrum.json').read_text())
    found = {(s['label'], s['place']) for s in content}
    places = {'stage1', 'stage2', 'stage3', 'stage4', 'pooled', 'projection'}
    assert found == {
        (label, place)
        for label in ('random', 'calibrated', 'plain', 'decorr')
        for place in places
    } | {('decorr', 'decorrelated')}
    assert {s['stride'] for s in content if s['place'] == 'stage4'} == {16}
    for one in content:  # of vectors, one per image and view
        assert ('lidar' in one['figures']) == (one['place'] in ('pooled', 'projection'))
    assert 'LiDAR' in done.stdout
    normalisations = {s['label']: s['normalisation'] for s in content}
    assert 'training batches' in normalisations['calibrated']
    assert 'as initialised' in normalisations['random']
    assert (tmp_path / 'out/spectrum.png').stat().st_size > 1000
    again = tools.run(*command)
    assert again.returncode == 2
    assert 'spectrum.json exists; choose another --out' in again.stderr
    command[command.index('--out') + 1] = str(tmp_path / 'part')
    del command[command.index('decorr')], command[4]  # no decorrelation now
    for place, message in (
        ('stage9', 'no model has features at stage9, but at stage1, stage2,'),
        ('decorrelated', 'no model has features at decorrelated, but at'),
    ):
        part = tools.run(*command, '--places', 'pooled', place)
        assert part.returncode == 2
        assert message in part.stderr
