"""What a table file may say."""

from dataclasses import MISSING, fields

import pytest
import yaml

from medssl_mm import experiments
from medssl_mm.errors import UserError
from medssl_mm.experiments.table import _TableFile
from tests.experiments.conftest import TABLE, plan


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        ('{name: end, last_of: deep}', "no evaluation above is called 'deep'"),
        ('{name: end, last_of: linear, config: linear.py}', 'or last_of'),
        ('{name: end}', 'evaluation end: config is missing'),
    ],
)
def test_wrong_last_weights_are_refused(tmp_path, entry, message):
    path = tmp_path / 'toy.yaml'
    path.write_text(f'{TABLE}  - {entry}\n')
    with pytest.raises(UserError, match=message):
        experiments.load_table(path)


def test_select(table):
    part = experiments.select(table, ['moco'], None, [5], [0.5])
    steps, results = plan(part)
    assert len(steps) == 3 and len(results) == 1
    with pytest.raises(UserError, match=r"no row \['mocov3'\].*'moco'"):
        experiments.select(table, ['mocov3'])
    with pytest.raises(UserError, match=r"no split \['fold0'\]"):
        experiments.select(table, splits=['fold0'])
    assert part.baseline == 'random'
    assert experiments.select(table, baseline='moco').baseline == 'moco'
    with pytest.raises(UserError, match=r"no baseline \['random'\].*'moco'"):
        experiments.select(table, ['moco'], baseline='random')


@pytest.mark.parametrize(
    ('change', 'facts'),
    [
        (('title: Toy', 'titel: Toy'), ["'titel'", 'did you mean title?']),
        (
            ('title: MoCo', 'titel: MoCo'),
            ['rows[1] (moco).titel', "unknown key 'titel'", 'did you mean title?'],
        ),
        (('baseline: random', 'baseline: none'), ["baseline 'none' is no row"]),
        (('[1.0, 0.5]', '[1.0, 50]'), ['fractions[1]', 'equal to 1', 'got 50']),
        (('[0, 1]', '[0, one]'), ['seeds[1]', 'valid integer', "'one'"]),
        (('[0, 1]', '[0, true]'), ['seeds[1]', 'valid integer', 'True']),
        (('name: moco,', 'name: random,'), ['same name']),
        (('title: MoCo,', 'title: random init,'), ['same title']),
        (
            ('pretrain: pretrain.py', 'pretrain: a.py, checkpoint: b.pth'),
            ['row moco', 'pretrain or checkpoint'],
        ),
        (('processes: 0', 'processes: two'), ['processes', 'valid integer', "'two'"]),
        (('processes: 0', 'processes: -1'), ['processes', 'equal to 0', '-1']),
        (('processes: 0', 'amp: bf16'), ['amp', "'bfloat16' or 'float16'", "'bf16'"]),
        (('title: Toy', 'title: ['), ['is not YAML']),
        (('title: Toy', 'title: 2024-13-01'), ['is not YAML', 'month']),
        (('title: Toy', '[a, b]: Toy'), ['is not YAML', 'unhashable']),
        (('title: Toy', '\ttitle: Toy'), ['is not YAML', "'\\t'", 'line 2']),
        (
            ('title: Toy', 'title: Toy\nprocesses: 2'),
            ["'processes' stands twice", 'line 7'],
        ),
        (
            ('title: MoCo', 'name: other'),
            ["'name' stands twice"],
        ),
        (('title: Toy', 'splits: [a, a]'), ['splits', 'different', "['a', 'a']"]),
        (('title: Toy', 'splits: a'), ['splits', "got 'a'"]),
        (
            ('title: random init}', 'evaluations: [linera]}'),
            ["row random: no evaluation is called linera; there are ['linear']"],
        ),
        (
            ('title: Toy', 'split_options: {train: [a]}'),
            ["split_options.train: unknown key 'train'", 'pretrain'],
        ),
        (
            ('title: Toy', 'split_options: {pretrain: a}'),
            ['split_options.pretrain', "got 'a'"],
        ),
        (('title: Toy', 'validation: off-and-on'), ['validation', "'off-and-on'"]),
        (
            ('  - {name: linear, config: linear.py}', '  - {name: linear}'),
            ['evaluation linear: config is missing'],
        ),
        (('  - {name: random,', '  - {'), ['rows[0].name', 'missing']),
        (
            ('title: random init}', 'data: acdc}'),
            ['row random', 'data is what pretrain sees'],
        ),
        (
            ('title: Toy', 'data: {data_root: x, splitt: y}'),
            ["data.splitt: unknown key 'splitt'", 'did you mean split?'],
        ),
    ],
)
def test_faulty_table_is_refused(tmp_path, change, facts):
    path = tmp_path / 'bad.yaml'
    assert change[0] in TABLE
    path.write_text(TABLE.replace(*change))
    with pytest.raises(UserError) as raised:
        experiments.load_table(path)
    for fact in ['bad.yaml', *facts]:
        assert fact in str(raised.value)


@pytest.mark.parametrize('text', ['', '- a', 'rows: 3', 'rows: [a]\nevaluations: []'])
def test_what_is_no_table_is_refused(tmp_path, text):
    path = tmp_path / 'bad.yaml'
    path.write_text(text)
    with pytest.raises(UserError, match=r'bad\.yaml'):
        experiments.load_table(path)


def with_data(tmp_path, data, row='', evaluation=''):
    path = tmp_path / 'toy.yaml'
    path.write_text(
        TABLE.replace('title: Toy', f'data: {data}')
        .replace('pretrain: pretrain.py', f'pretrain: pretrain.py{row}')
        .replace('config: linear.py', f'config: linear.py{evaluation}')
    )
    return experiments.load_table(path)


def test_methods_are_put_on_the_data_of_the_table(tmp_path):
    table = with_data(tmp_path, 'curvas', evaluation=', data: other.py')
    assert table.rows[0].pretrain is None
    assert table.rows[1].pretrain == 'pretrain.py+curvas'
    assert table.evaluations[0].config == 'linear.py+other.py'


def test_a_store_of_ones_own_is_an_option(tmp_path):
    own = '{data_root: data/scans, split: mine}'
    table = with_data(tmp_path, own, ', options: {split: x}')
    assert table.rows[1].pretrain == 'pretrain.py'
    assert table.rows[1].options == dict(data_root='data/scans', split='x')
    assert table.evaluations[0].options == dict(data_root='data/scans', split='mine')


def test_everything_that_a_file_says_arrives(tmp_path):
    said = dict(
        **dict(name='n', title='t', runs_dir='r', baseline='random', seeds=[3]),
        **dict(fractions=[0.5], processes=2, amp='float16', weights_option='w'),
        **dict(fraction_options=['f', 's'], splits=['a'], validation=False),
        **dict(split_options=dict(pretrain=['p']), silence=60, note='so'),
        last_weights_below=0.5,
        **dict(slurm=dict(partition='gpu', test=dict(minutes=30)), data='curvas'),
        rows=[dict(name='random')],
        evaluations=[dict(name='linear', config='linear.py')],
    )
    assert said.keys() == _TableFile.model_fields.keys()
    path = tmp_path / 'all.yaml'
    path.write_text(yaml.safe_dump(said))
    table = experiments.load_table(path)
    assert {f.name for f in fields(table)} == said.keys() - {'data'}
    for field in fields(table):
        if field.default is not MISSING:
            assert getattr(table, field.name) != field.default, field.name
        if field.default_factory is not MISSING:
            assert getattr(table, field.name) != field.default_factory(), field.name
    assert table.slurm.of('test')['time'] == 30
    assert table.slurm.of('train')['partition'] == 'gpu'


def test_absent_table_is_named(tmp_path):
    with pytest.raises(UserError, match=r'no\.yaml does not exist'):
        experiments.load_table(tmp_path / 'no.yaml')
