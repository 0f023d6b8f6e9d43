import json

import numpy as np
import pandas as pd
import pytest

from medssl_mm.errors import UserError
from medssl_mm.results.transfer import Place, TransferResults, read_measures

ENCODERS = {'a': 60.0, 'b': 70.0, 'c': 75.0, 'r': None}


def content(encoder, dataset, protocol, value, mode='strict', seed=0, **more):
    few_shot = protocol == 'few_shot'
    rng = np.random.default_rng(seed)
    noise = 0.01 * rng.normal(size=40)
    names = ['accuracy'] if few_shot else ['accuracy', 'macro AUROC']
    return dict(
        mode=mode,
        encoder=dict(
            name=encoder,
            title=f'Encoder {encoder}',
            group='ssl',
            imagenet_top1=ENCODERS[encoder],
        ),
        dataset=dict(
            name=dataset,
            title=dataset,
            domain='in' if dataset == 'one' else 'out',
            sets=[f'set_{dataset}', 'made'],
            metric='accuracy',
        ),
        trained_on_it=encoder == 'a' and dataset == 'two',
        protocol=protocol,
        settings=dict(shots=5),
        patients=30,
        has_patients=True,
        split='made',
        split_hash='ab',
        notes=[],
        drawn={name: (value + noise).tolist() for name in names},
        **(dict(digest='d') if few_shot else dict(predictions=dict(image_ids=['x']))),
        **more,
    )


VALUES = dict(a=0.6, b=0.9, c=0.7, r=0.5)


def made(**more):
    cells = [
        content(encoder, dataset, protocol, value - 0.1 * (dataset == 'two'), **more)
        for encoder, value in VALUES.items()
        for dataset in ('one', 'two')
        for protocol in ('few_shot', 'linear')
    ]
    return cells


def test_tables_and_differences(tmp_path):
    results = TransferResults(made(), 'r')
    linear = results.table('linear', 'macro AUROC').set_index('encoder')
    assert linear.loc['Encoder b', 'one'].startswith('9')
    # The resamples are the same, so nothing is left of their spread.
    assert '+40.0 [+40.0, +40.0]' in linear.loc['Encoder b', 'one']
    assert '+' not in linear.loc['Encoder r', 'one']
    assert linear.loc['Encoder a', 'two'].endswith('†')
    assert not linear.loc['Encoder a', 'one'].endswith('†')
    paths = results.write(tmp_path, 'Made', 'a note')
    assert {p.name for p in paths} >= {'transfer.jsonl', 'imagenet_top1.png'}
    lines = (tmp_path / 'transfer.jsonl').read_text().splitlines()
    assert len(lines) == 16 and 'drawn' not in json.loads(lines[0])
    frame = pd.read_csv(tmp_path / 'transfer.csv')
    row = frame[(frame.encoder == 'b') & (frame.dataset == 'one')]
    assert row.difference.round(6).unique().tolist() == [0.4]
    text = (tmp_path / 'transfer.md').read_text()
    assert 'mode strict' in text and 'a note' in text
    assert '## linear: accuracy' in text and '## few_shot: accuracy' in text


def test_scaled_performance_by_domain():
    found = TransferResults(made()).scaled().set_index('encoder')
    assert found.loc['Encoder b'].tolist() == ['1.000', '1.000']
    assert found.loc['Encoder c'].tolist() == ['0.500', '0.500']


def test_correlations_with_what_is_known(tmp_path):
    (tmp_path / 'm.csv').write_text(
        'encoder,measure,value,dataset\na,invariance,3,one\nb,invariance,2,one\n'
        'c,invariance,1,one\nr,invariance,4,one\n'
    )
    measures = read_measures(tmp_path / 'm.csv')
    results = TransferResults(made(), measures=measures)
    found = {(d, p, m, c.kind): c for d, p, m, c in results.correlations()}
    top1 = found['one', 'linear', 'ImageNet top-1', 'pearson']
    assert top1.points == 3
    assert top1.r == pytest.approx(np.corrcoef([60, 70, 75], [0.6, 0.9, 0.7])[0, 1])
    invariance = found['one', 'linear', 'invariance', 'spearman']
    assert invariance.points == 4 and invariance.r == pytest.approx(-0.8)
    assert ('two', 'linear', 'invariance', 'pearson') not in found
    assert any('say little' in note for note in results.notes())


def test_seeds_are_averaged():
    cells = [content('r', 'one', 'linear', v, seed=s) for s, v in enumerate((0.4, 0.6))]
    frame = TransferResults(cells).frame()
    expected = np.mean([cell['drawn']['accuracy'][0] for cell in cells])
    assert frame.seeds.unique().tolist() == [2]
    assert frame.set_index('score').value['accuracy'] == pytest.approx(expected)


def test_fine_tunings_are_paired_by_their_seeds():
    """Not by their order: a has seeds 1 and 2, r has 0, 1 and 2."""

    def tuned(encoder, seed, value):
        cell = content(encoder, 'one', 'finetune', value, seed=seed)
        cell['settings'] = dict(kind='finetune')
        cell['encoder']['seed'] = seed
        return cell

    cells = [tuned('a', seed, 0.1 * seed + 0.3) for seed in (2, 1)]
    cells += [tuned('r', seed, 0.1 * seed) for seed in (0, 1, 2)]
    frame = TransferResults(cells, 'r').frame().set_index(['encoder', 'score'])
    row = frame.loc['a', 'accuracy']
    assert row.difference == pytest.approx(0.3)
    # Equal in both seeds and all resamples: no other pairing has this interval.
    assert row.difference_low == pytest.approx(0.3)
    assert row.difference_high == pytest.approx(0.3)


def test_random_starts_of_two_encoders_share_no_seed():
    cells = [
        {**cell, 'encoder': {**cell['encoder'], 'seed': seed}}
        for seed in (0, 1, 2)
        for encoder in ('a', 'r')
        for cell in [content(encoder, 'one', 'linear', 0.1 * seed + 0.2, seed=3 * seed)]
    ]
    frame = TransferResults(cells, 'r').frame().set_index(['encoder', 'score'])
    row = frame.loc['a', 'accuracy']
    # By seed they are equal, so that paired they would have an interval of 0.
    assert row.difference == pytest.approx(0) and row.difference_high > 0.1


def test_what_is_not_put_together(tmp_path):
    with pytest.raises(UserError, match='modes compat and strict'):
        TransferResults([*made(), content('a', 'one', 'linear', 0.5, 'compat')])
    with pytest.raises(UserError, match='no result is finished'):
        TransferResults([])
    (tmp_path / 'm.csv').write_text('encoder,measure,value,mode\na,x,1,compat\n')
    with pytest.raises(UserError, match='mode compat, the table is of mode strict'):
        TransferResults(made(), measures=read_measures(tmp_path / 'm.csv'))
    (tmp_path / 'm.csv').write_text('encoder,value\na,1\n')
    with pytest.raises(UserError, match='lacks the column measure'):
        read_measures(tmp_path / 'm.csv')
    cells = made()
    cells[0]['digest'] = 'other'
    with pytest.raises(UserError, match='different episodes'):
        TransferResults(cells, 'r').table('few_shot', 'accuracy')


def test_measures_name_the_image_set(tmp_path):
    """Tools write the name of the set; slips are told, and how often."""
    (tmp_path / 'm.csv').write_text(
        'encoder,measure,value,dataset\n'
        + ''.join(f'{e},invariance,{n},set-one\n' for n, e in enumerate('abcr'))
        + 'bb,invariance,1,set-one\nbb,invariance,1,two\n'
        + 'a,invariance,1,set_three\na,diffusion,1,\n'
    )
    measures = read_measures(tmp_path / 'm.csv')
    results = TransferResults(made(), measures=measures)
    found = {(d, p, m) for d, p, m, _ in results.correlations() if m == 'invariance'}
    assert found == {('one', 'few_shot', 'invariance'), ('one', 'linear', 'invariance')}
    told = [note for note in results.notes() if '--measures' in note]
    assert len(told) == 2
    assert told[0].startswith('2 rows of --measures not used: the table has no encoder')
    assert "'bb'" in told[0] and "no data set 'set_three'" in told[1]
    assert 'did you mean set_' in told[1] and told[1].startswith('1 row of')
    # The folder holds several sets of the table: it means all of them.
    (tmp_path / 'm.csv').write_text(
        'encoder,measure,value,dataset\n'
        + ''.join(f'{e},invariance,{n},made\n' for n, e in enumerate('abcr'))
    )
    results = TransferResults(made(), measures=read_measures(tmp_path / 'm.csv'))
    found = {d for d, _, m, _ in results.correlations() if m == 'invariance'}
    assert found == {'one', 'two'}


def test_compat_reports_what_the_study_did():
    cells = made(mode='compat', rules=['chosen by something'])
    rng = np.random.default_rng(1)
    for cell in cells:
        if cell['protocol'] == 'linear':
            name = 'mean per-class accuracy'
            cell['drawn'][name] = rng.uniform(size=40).tolist()
            if cell['dataset']['name'] == 'two':
                cell['dataset']['metric'] = name
        cell['encoder']['rule'] = 'x for y' if cell['encoder']['name'] == 'a' else ''
    results = TransferResults(cells, 'r')
    assert results.headline('linear', 'one') == 'accuracy'
    assert results.headline('linear', 'two') == 'mean per-class accuracy'
    assert results.headline('few_shot', 'two') == 'accuracy'
    assert results.headlines('linear') == ['accuracy', 'mean per-class accuracy']
    notes = results.notes()
    assert 'a: x for y' in notes
    assert 'linear of two: chosen by something' in notes
    strict = TransferResults(made())
    assert strict.headlines('linear') == ['macro AUROC']
    # Intervals of episodes: the variance over N, of all frames of the result.
    place = Place('a', 'one', 'few_shot')
    values = np.array(cells[0]['drawn']['accuracy'])
    reach = 1.96 * values.std() / 40**0.5
    found = results.value(place, 'accuracy')
    assert found.high - found.estimate == pytest.approx(reach)
    wider = strict.value(place, 'accuracy')
    assert wider.high - wider.estimate == pytest.approx(reach * (40 / 39) ** 0.5)


def test_what_was_seen_is_marked():
    """As the table says, or as was found when images were compared."""
    cells = made()
    for cell in cells:
        cell['seen'] = dict(kind='image', role='test', of=9, not_known=[])
        if cell['encoder']['name'] == 'b' and cell['dataset']['name'] == 'one':
            cell['seen']['pretrain'] = dict(cases=2, names=['x', 'y'])
    results = TransferResults(cells)
    seen = {(p.encoder, p.dataset) for p in results.groups if results.seen(p)}
    assert seen == {('a', 'two'), ('b', 'one')}
