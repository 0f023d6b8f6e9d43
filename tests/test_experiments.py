"""Planning and running the steps of a result table."""

import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from medssl_mm import cores, experiments
from medssl_mm.errors import UserError
from medssl_mm.files import locked
from medssl_mm.results import summarize
from tests.results.made import write_result
from tests.waiting import PATIENCE

TABLE = """
title: Toy
baseline: random
seeds: [0, 1]
fractions: [1.0, 0.5]
processes: 0
rows:
  - {name: random, title: random init}
  - {name: moco, title: MoCo, pretrain: pretrain.py}
evaluations:
  - {name: linear, config: linear.py}
"""
TABLES = Path(__file__).parents[1] / 'configs/tables'
KEYS = [
    'pretrain-moco-seed0-473e8e37',
    'train-linear-moco-100pct-seed0-dad06970',
    'train-linear-moco-50pct-seed0-4ce8e390',
    'test-linear-moco-100pct-seed0-5aac6066',
    'test-linear-moco-50pct-seed0-3b282fc8',
]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / 'toy.yaml'
    path.write_text(TABLE)
    return replace(experiments.load_table(path), runs_dir=tmp_path / 'runs')


def resolve(config, options):
    return {'config': config, **options}


def plan(table):
    return experiments.plan(table, resolve)


def test_last_weights_are_tested_of_the_same_training(tmp_path, fake_tools):
    path = tmp_path / 'toy.yaml'
    path.write_text(TABLE + ('  - {name: end, title: last weights, last_of: linear}\n'))
    table = replace(
        experiments.load_table(path),
        runs_dir=tmp_path / 'runs',
        seeds=(0,),
        fractions=(1.0,),
    )
    alone = plan(replace(table, evaluations=table.evaluations[:1]))[0]
    steps, results = plan(table)
    assert set(alone) < set(steps)
    assert [key.rsplit('-', 1)[0] for key in steps if key not in alone] == [
        'test-end-random-100pct-seed0',
        'test-end-moco-100pct-seed0',
    ]
    # Without the evaluation that trains, the same models.
    part, _ = plan(experiments.select(table, evaluations=['end']))
    assert set(part) < set(steps) and len(part) == 5
    for step in steps.values():
        if step.kind == 'train':
            step.folder.mkdir(parents=True)
            (step.folder / 'best_dice.pth').touch()
    assert experiments.run_steps(table, steps, report=lambda line: None) == []
    for step in steps.values():
        if step.kind == 'test':
            name = 'last.pth' if '-end-' in step.key else 'best_dice.pth'
            assert experiments.command_of(step, table, steps)[3] == str(
                steps[step.needs[0]].folder / name
            )
    assert [run.group for run, _ in results] == [
        'linear',
        'linear',
        'last weights',
        'last weights',
    ]
    for step in steps.values():
        if step.kind == 'train':
            (step.folder / 'last.pth').unlink()
        elif step.last:
            (step.folder / experiments.DONE).unlink()
    errors = experiments.run_steps(table, steps, report=lambda line: None)
    assert len(errors) == 2 and 'holds no checkpoint any more' in errors[0]


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        ('{name: end, last_of: deep}', "no evaluation above is called 'deep'"),
        ('{name: end, last_of: linear, config: linear.py}', 'or last_of'),
        ('{name: end}', "missing keys .'config'."),
    ],
)
def test_wrong_last_weights_are_refused(tmp_path, entry, message):
    path = tmp_path / 'toy.yaml'
    path.write_text(f'{TABLE}  - {entry}\n')
    with pytest.raises(UserError, match=message):
        experiments.load_table(path)


def test_steps_are_shared_and_ordered(table):
    steps, results = plan(table)
    kinds = [step.kind for step in steps.values()]
    # 2 pretrainings serve both fractions; 2 rows x 2 fractions x 2 seeds.
    assert kinds == ['pretrain'] * 2 + ['train'] * 8 + ['test'] * 8
    seen = set()
    for step in steps.values():
        assert set(step.needs) <= seen
        seen.add(step.key)
    assert [(run.label, run.fraction, len(run.folders)) for run, _ in results] == [
        ('random init', 1.0, 2),
        ('MoCo', 1.0, 2),
        ('random init', 0.5, 2),
        ('MoCo', 0.5, 2),
    ]


def test_row_with_evaluations_and_options_of_its_own(tmp_path):
    path = tmp_path / 'toy.yaml'
    path.write_text(
        TABLE.replace(
            'title: random init}',
            ('title: random init, evaluations: [deep], evaluation_options: {lr: 2}}'),
        )
        + ('  - {name: deep, config: deep.py, options: {lr: 1, size: 9}}\n')
    )
    steps, results = plan(experiments.load_table(path))
    found = {(run.group, run.label) for run, _ in results}
    assert found == {('deep', 'random init'), ('deep', 'MoCo'), ('linear', 'MoCo')}
    rates = {
        (step.options['lr'], step.options['size'], '-random-' in key)
        for key, step in steps.items()
        if step.config == 'deep.py'
    }
    assert rates == {(2, 9, True), (1, 9, False)}
    assert all(
        'lr' not in step.options for step in steps.values() if step.config != 'deep.py'
    )


def test_fraction_uses_the_seed_and_full_data_none(table):
    steps, _ = plan(table)
    options = {
        (step.seed, str(step.options))
        for step in steps.values()
        if step.kind == 'train'
    }
    name = 'train_dataloader.dataset.fraction'
    assert options == {
        (seed, str(extra))
        for seed in (0, 1)
        for extra in ({}, {name: 0.5, f'{name}_seed': seed})
    }


def test_folders_of_a_table_without_splits_stay(table):
    """Else finished tables would be computed anew."""
    keys = [
        step.key
        for step in plan(table)[0].values()
        if '-moco-' in step.key and step.seed == 0
    ]
    assert keys == KEYS


def test_cross_validation_does_everything_on_every_split(table):
    table = replace(table, splits=('fold0', 'fold1'), fractions=(1.0,))
    steps, results = plan(table)
    kinds = [step.kind for step in steps.values()]
    # 2 seeds x 2 splits; 2 rows besides for training and test.
    assert kinds == ['pretrain'] * 4 + ['train'] * 8 + ['test'] * 8
    for step in steps.values():
        name = next(n for n in table.splits if f'-{n}-' in step.key)
        assert name in step.title
        loaders = ('train',) if step.kind == 'pretrain' else ('train', 'val', 'test')
        assert step.options == {
            f'{loader}_dataloader.dataset.split': name for loader in loaders
        }
        # Weights, and what is tested, come from the same split and seed.
        for key in step.needs:
            assert f'-{name}-seed{step.seed}-' in key
    for run, tests in results:
        assert [len(keys) for keys in tests] == [2, 2]
        assert len(set(run.folders)) == 2
        assert not set(run.folders) & {s.folder for s in steps.values()}
    # The folders of a split do not depend on the others.
    alone, results = plan(experiments.select(table, splits=['fold1']))
    assert set(alone) == {key for key in steps if '-fold1-' in key}
    for run, tests in results:
        assert run.folders == tuple(steps[key].folder for (key,) in tests)


def test_splits_go_where_the_table_says(table):
    table = replace(
        table,
        splits=('a',),
        split_options={'pretrain': ('x.split',), 'evaluation': ('y.split', 'z.split')},
    )
    options = {
        step.kind: step.options
        for step in plan(table)[0].values()
        if '100pct' in step.key or step.kind == 'pretrain'
    }
    assert options == {
        'pretrain': {'x.split': 'a'},
        'train': {'y.split': 'a', 'z.split': 'a'},
        'test': {'y.split': 'a', 'z.split': 'a'},
    }


def test_config_that_reads_another_split_is_refused(table):
    def leaky(config, options):
        return {'custom_hooks': [{'dataset': {'split': 'holdout'}}]}

    experiments.plan(table, leaky)  # its own split is the config's business
    with pytest.raises(
        UserError,
        match=r'pretrain\.py|linear\.py'
        r".*'holdout' at custom_hooks\.0\.dataset\.split",
    ):
        experiments.plan(replace(table, splits=('fold0',)), leaky)


def test_without_validation_the_last_checkpoint_is_tested(table):
    table = experiments.select(
        replace(table, splits=('fold0',), validation=False),
        rows=['random'],
        seeds=[0],
        fractions=[1.0],
    )
    train, test = plan(table)[0].values()
    assert 'val_dataloader.dataset.split' not in train.options
    train.folder.mkdir(parents=True)
    for name in ('best_volume_mDice_iter_3.pth', 'iter_5.pth'):
        (train.folder / name).touch()
    (train.folder / 'last_checkpoint').write_text('iter_5.pth')
    steps = {step.key: step for step in (train, test)}
    command = experiments.command_of(test, table, steps)
    assert str(train.folder / 'iter_5.pth') in command
    command = experiments.command_of(test, replace(table, validation=True), steps)
    assert str(train.folder / 'best_volume_mDice_iter_3.pth') in command


def test_seed_is_finished_with_all_its_splits(table):
    table = experiments.select(
        replace(table, splits=('fold0', 'fold1')), rows=['random'], fractions=[1.0]
    )
    steps, results = plan(table)
    tests = [step for step in steps.values() if step.kind == 'test']

    def finish(step):
        number = int(step.options['test_dataloader.dataset.split'][-1])
        write_result(
            step.folder,
            [[0.5, 0.1 + 0.2 * number]] * 2,
            str(number),
            first_case=2 * number,
            protocol=f'set-2fold-fold{number}',
        )
        (step.folder / 'done.json').write_text('{}')

    finish(next(s for s in tests if s.seed == 0))
    assert experiments.finished_runs(results, steps) == []
    for step in tests[:-1]:
        finish(step)
    (run,) = experiments.finished_runs(results, steps)
    assert len(run.folders) == 1 and len(results[0][0].folders) == 2
    (row,) = summarize([run])
    assert row.score.estimate == pytest.approx((0.5 + (0.1 + 0.3) / 2) / 2)
    assert (row.patients, row.splits, row.protocol) == (2, 2, 'set-2fold')


@pytest.mark.parametrize(
    'path', sorted(TABLES.glob('*.yaml')), ids=lambda path: path.stem
)
def test_shipped_tables_can_be_planned(path, monkeypatch):
    monkeypatch.chdir(TABLES.parents[1])
    table = experiments.load_table(path)
    steps, results = experiments.plan(
        experiments.select(table, seeds=table.seeds[:1], splits=table.splits[:1])
    )
    assert {step.kind for step in steps.values()} == {'pretrain', 'train', 'test'}
    evaluated = sum(len(row.evaluations or table.evaluations) for row in table.rows)
    assert len(results) == evaluated * len(table.fractions)
    for step in steps.values():
        content = experiments.resolved_config(step.config, step.options)
        loaders = [
            name
            for name in content
            if name.endswith('_dataloader') and content[name] is not None
        ]
        found = {content[name]['dataset']['split'] for name in loaders}
        assert found == set(table.splits[:1]) or not table.splits
        if step.kind != 'pretrain':
            validated = 'val_dataloader' in loaders
            assert validated == (content['val_cfg'] is not None)
            assert validated == table.validation


def test_changed_pretraining_moves_only_what_depends_on_it(table):
    before, _ = plan(table)
    after, _ = experiments.plan(
        table,
        lambda config, options: {
            'config': config,
            'changed': config == 'pretrain.py',
            **options,
        },
    )
    kept = set(before) & set(after)
    assert {before[key].kind for key in before if key not in kept} == {
        'pretrain',
        'train',
        'test',
    }
    # An unchanged evaluation from random weights keeps its results. (The
    # fake above also changes its own entry, hence the third plan.)
    third, _ = experiments.plan(
        table,
        lambda config, options: {
            'config': config,
            **options,
            **({'lr': 2} if config == 'pretrain.py' else {}),
        },
    )
    assert {key for key in before if '-random-' in key} <= set(third)
    assert not {key for key in before if 'moco' in key} & set(third)


def test_checkpoint_row_needs_no_pretraining(table):
    row = replace(table.rows[1], pretrain=None, checkpoint='given.pth')
    steps, _ = plan(replace(table, rows=(row,)))
    assert {step.kind for step in steps.values()} == {'train', 'test'}
    step = next(iter(steps.values()))
    command = experiments.command_of(step, table, steps)
    assert 'model.backbone.init_cfg.checkpoint=given.pth' in command


def test_command_line(table):
    steps, _ = plan(replace(table, processes=2))
    launched = replace(table, processes=2)
    by_kind = {step.kind: step for step in steps.values()}
    command = experiments.command_of(by_kind['train'], launched, steps)
    assert command[0] == 'bash' and command[1].endswith('dist_train.sh')
    assert command[2:4] == ['linear.py', '2']
    assert '--resume' in command
    # Not pretrained yet: the place of the checkpoint is shown.
    assert any(
        part.startswith('model.backbone.init_cfg.checkpoint=<pretrain-moco')
        for part in command
    )
    command = experiments.command_of(by_kind['test'], launched, steps)
    assert command[1].endswith('dist_test.sh')
    assert command[3].startswith('<train-') and command[4] == '2'
    assert any(part.startswith('test_evaluator.out_dir=') for part in command)


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
    ('change', 'message'),
    [
        (('title: Toy', 'titel: Toy'), r"unknown keys \['titel'\]"),
        (('baseline: random', 'baseline: none'), "baseline 'none' is no row"),
        (('[1.0, 0.5]', '[1.0, 50]'), 'fractions are shares'),
        (('[0, 1]', '[0, one]'), 'seeds are whole numbers'),
        (('name: moco,', 'name: random,'), 'same name'),
        (('title: MoCo,', 'title: random init,'), 'same title'),
        (
            ('pretrain: pretrain.py', 'pretrain: a.py, checkpoint: b.pth'),
            'pretrain or checkpoint',
        ),
        (('processes: 0', 'processes: two'), 'processes must be'),
        (('title: Toy', 'title: ['), 'is not YAML'),
        (('title: Toy', 'splits: [a, a]'), 'splits is a list of different'),
        (('title: Toy', 'splits: a'), 'splits is a list of different'),
        (
            ('title: random init}', 'evaluations: [linera]}'),
            r"row random: no evaluation is called linera; there are \['linear'\]",
        ),
        (
            ('title: Toy', 'split_options: {train: [a]}'),
            r"split_options: unknown keys \['train'\]",
        ),
        (
            ('title: Toy', 'split_options: {pretrain: a}'),
            'pretrain is a list of config keys',
        ),
        (('title: Toy', 'validation: off-and-on'), 'validation must be true or'),
        (
            ('  - {name: linear, config: linear.py}', '  - {name: linear}'),
            r"missing keys \['config'\]",
        ),
    ],
)
def test_faulty_table_is_refused(tmp_path, change, message):
    path = tmp_path / 'bad.yaml'
    assert change[0] in TABLE
    path.write_text(TABLE.replace(*change))
    with pytest.raises(UserError, match=message):
        experiments.load_table(path)


def test_absent_table_is_named(tmp_path):
    with pytest.raises(UserError, match=r'no\.yaml does not exist'):
        experiments.load_table(tmp_path / 'no.yaml')


def test_last_checkpoint_survives_a_move(tmp_path):
    old, new = tmp_path / 'old', tmp_path / 'new'
    old.mkdir()
    (old / 'iter_5.pth').touch()
    (old / 'last_checkpoint').write_text(str(old / 'iter_5.pth'))
    old.rename(new)
    assert experiments.last_checkpoint(new) == new / 'iter_5.pth'
    assert experiments.last_checkpoint(tmp_path) is None


# Stands in for tools/train.py and tools/test.py: writes what they write.
FAKE_TOOL = """
import pathlib, sys
arguments = sys.argv[1:]
folder = pathlib.Path(arguments[arguments.index('--work-dir') + 1])
with open({log!r}, 'a') as file:
    print(folder.name.rsplit('-', 1)[0], file=file)
if pathlib.Path({broken!r}).exists() and 'train-linear-moco' in folder.name:
    print('out of memory')
    sys.exit(3)
if '--resume' in arguments:
    (folder / 'last.pth').touch()
    (folder / 'last_checkpoint').write_text(str(folder / 'last.pth'))
else:
    assert pathlib.Path(arguments[1]).exists()
    (folder / 'metrics.json').write_text('{{}}')
"""


@pytest.fixture
def fake_tools(tmp_path, monkeypatch):
    folder = tmp_path / 'tools'
    folder.mkdir()
    code = FAKE_TOOL.format(log=str(tmp_path / 'log'), broken=str(tmp_path / 'broken'))
    for name in ('train.py', 'test.py'):
        (folder / name).write_text(code)
    monkeypatch.setattr(experiments, 'tools_folder', lambda: folder)
    return tmp_path


def log_of(folder):
    return (folder / 'log').read_text().split()


def test_runs_once_and_resumes_after_a_failure(table, fake_tools):
    table = experiments.select(table, seeds=[0], fractions=[1.0])
    steps, results = plan(table)
    (fake_tools / 'broken').touch()
    lines = []
    errors = experiments.run_steps(table, steps, report=lines.append)
    assert len(errors) == 1
    assert 'out of memory' in errors[0] and 'exit code 3' in errors[0]
    # What does not depend on the failed step was still done.
    runs = experiments.finished_runs(results, steps)
    assert [run.label for run in runs] == ['random init']
    done_before = len(log_of(fake_tools))

    (fake_tools / 'broken').unlink()
    assert experiments.run_steps(table, steps, report=lines.append) == []
    assert log_of(fake_tools)[done_before:] == [
        'train-linear-moco-100pct-seed0',
        'test-linear-moco-100pct-seed0',
    ]
    assert len(experiments.finished_runs(results, steps)) == 2

    done_before = len(log_of(fake_tools))
    assert experiments.run_steps(table, steps, report=lines.append) == []
    assert len(log_of(fake_tools)) == done_before


def test_jobs_at_the_same_time_keep_the_order(table, fake_tools):
    steps, _ = plan(table)
    assert experiments.run_steps(table, steps, jobs=3, report=lambda line: None) == []
    log = log_of(fake_tools)
    assert sorted(log) == sorted(key.rsplit('-', 1)[0] for key in steps)
    for seed in (0, 1):
        assert (
            log.index(f'pretrain-moco-seed{seed}')
            < log.index(f'train-linear-moco-50pct-seed{seed}')
            < log.index(f'test-linear-moco-50pct-seed{seed}')
        )


@pytest.mark.parametrize('jobs', [1, 2])
def test_jobs_share_the_cores(table, fake_tools, monkeypatch, jobs):
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'LOKY_MAX_CPU_COUNT'):
        monkeypatch.delenv(name, raising=False)
    whole = cores.available()
    tool = fake_tools / 'tools' / 'train.py'
    tool.write_text(
        tool.read_text() + 'import torch\nfrom medssl_mm import cores\n'
        '(folder / "seen").write_text('
        'f"{cores.available()} {torch.get_num_threads()} {cores.workers_within(99)}")\n'
    )
    table = experiments.select(table, seeds=[0], fractions=[1.0])
    steps, _ = plan(table)
    experiments.run_steps(table, steps, jobs=jobs, report=lambda line: None)
    seen = [
        tuple(map(int, (step.folder / 'seen').read_text().split()))
        for step in steps.values()
        if step.kind != 'test'
    ]
    assert len(seen) == 3
    if jobs == 1:  # as if there was no table
        assert {(part, workers) for part, _, workers in seen} == {(whole, 99)}
    else:
        parts = {max(1, whole // 2), max(1, (whole + 1) // 2)}
        assert {part for part, _, _ in seen} <= parts
        assert all(part == threads == workers for part, threads, workers in seen)


def test_weights_that_were_deleted_are_asked_for(table, fake_tools):
    table = experiments.select(table, seeds=[0], fractions=[1.0])
    steps, _ = plan(table)
    pretrain = next(s for s in steps.values() if s.kind == 'pretrain')
    assert (
        experiments.run_steps(table, {pretrain.key: pretrain}, report=lambda line: None)
        == []
    )
    (pretrain.folder / 'last.pth').unlink()
    errors = experiments.run_steps(table, steps, report=lambda line: None)
    assert len(errors) == 1
    assert f'{pretrain.folder} holds no checkpoint any more' in errors[0]
    (pretrain.folder / experiments.DONE).unlink()
    assert experiments.run_steps(table, steps, report=lambda line: None) == []


@pytest.mark.parametrize('keep', [False, True])
def test_superseded_checkpoints_go_when_the_training_is_done(table, fake_tools, keep):
    table = experiments.select(table, seeds=[0], fractions=[1.0])
    steps, _ = plan(table)
    folder = next(
        step.folder
        for step in steps.values()
        if step.key.startswith('train-linear-moco')
    )
    folder.mkdir(parents=True)
    names = [
        'epoch_1.pth',
        'iter_10.pth',
        'iter_20.pth',
        'mine.pth',
        'best_volume_mDice_iter_10.pth',
        'best_volume_mDice_iter_20.pth',
    ]
    for age, name in enumerate(reversed(names)):
        (folder / name).touch()
        os.utime(folder / name, (1e9 - age, 1e9 - age))

    def present():
        return {path.name for path in folder.glob('*.pth')}

    (fake_tools / 'broken').touch()
    for _ in range(2):  # what failed may be resumed from any of them
        experiments.run_steps(
            table, steps, report=lambda line: None, keep_checkpoints=keep
        )
        assert present() == set(names)
    (fake_tools / 'broken').unlink()
    assert (
        experiments.run_steps(
            table, steps, report=lambda line: None, keep_checkpoints=keep
        )
        == []
    )
    assert present() == {
        'last.pth',
        *(names if keep else ['mine.pth', 'best_volume_mDice_iter_20.pth']),
    }


def test_nothing_is_deleted_where_the_last_checkpoint_is_unknown(tmp_path):
    (tmp_path / 'iter_10.pth').touch()
    assert experiments.drop_superseded(tmp_path) == []
    assert (tmp_path / 'iter_10.pth').exists()


def test_two_tables_at_a_time_share_the_work(table, fake_tools):
    steps, results = plan(table)
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(experiments.run_steps, table, steps, report=lambda line: None)
            for _ in range(2)
        ]
    assert [one.result() for one in both] == [[], []]
    assert sorted(log_of(fake_tools)) == sorted(key.rsplit('-', 1)[0] for key in steps)
    assert len(experiments.finished_runs(results, steps)) == len(results)


def test_step_of_another_process_is_left_to_it(table, fake_tools):
    steps, _ = plan(table)
    busy = next(s for s in steps.values() if s.kind == 'pretrain')
    later = {busy.key}
    for step in steps.values():
        if set(step.needs) & later:
            later.add(step.key)
    others = [step for step in steps.values() if step.key not in later]
    with ThreadPoolExecutor(1) as pool:
        with locked(busy.folder):
            run = pool.submit(
                experiments.run_steps, table, steps, report=lambda line: None
            )
            while not run.done() and not all(step.done for step in others):
                time.sleep(0.05)
            assert not run.done() and not busy.done
        assert run.result() == []
    assert all(step.done for step in steps.values())
    assert sorted(log_of(fake_tools)) == sorted(key.rsplit('-', 1)[0] for key in steps)


RUNNER = """
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from medssl_mm import experiments
# Ignored where the tests run in the background of a shell.
signal.signal(signal.SIGINT, signal.default_int_handler)
folder = Path(sys.argv[1])
experiments.tools_folder = lambda: folder / 'slow'
table = replace(experiments.load_table(folder / 'toy.yaml'),
                runs_dir=folder / 'runs')
steps, _ = experiments.plan(
    table, lambda config, options: {'config': config, **options})
experiments.run_steps(table, steps)
"""
SLOW_TOOL = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index('--work-dir') + 1])
(folder / 'started').touch()
while not (folder / 'go_on').exists():
    time.sleep(0.02)
(folder / 'last.pth').touch()
(folder / 'last_checkpoint').write_text(str(folder / 'last.pth'))
"""


@pytest.mark.parametrize(
    ('number', 'survives'),
    [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGKILL, True)],
)
def test_killed_runner_leaves_no_step_that_is_not_locked(
    table, tmp_path, number, survives
):
    def until(condition):
        limit = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < limit
            time.sleep(0.02)

    def is_free():
        with locked(first.folder) as lock:
            return lock is not None

    (tmp_path / 'slow').mkdir()
    (tmp_path / 'slow/train.py').write_text(SLOW_TOOL)
    first = next(iter(plan(table)[0].values()))
    runner = subprocess.Popen(
        [sys.executable, '-c', RUNNER, str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until((first.folder / 'started').exists)
    runner.send_signal(number)
    assert runner.wait(60) != 0
    if survives:
        assert not is_free()
        (first.folder / 'go_on').touch()
    until(is_free)
    assert (first.folder / 'last.pth').exists() == survives
    assert not first.done


def test_tools_are_found():
    folder = experiments.tools_folder()
    assert (folder / 'dist_train.sh').is_file()
    mode = Path(folder / 'dist_train.sh').stat().st_mode
    assert mode & stat.S_IXUSR or sys.platform == 'win32'


def test_resolved_config_follows_options():
    config = Path(__file__).parents[1] / 'configs/selfsup/default_runtime.py'
    first = experiments.resolved_config(str(config), {})
    second = experiments.resolved_config(str(config), {'randomness.seed': 7})
    assert first['randomness']['seed'] != 7 == second['randomness']['seed']


def test_classifiers_are_not_cross_validated(table):
    def resolve_classifier(config, options):
        kind = 'medssl_mm.ClassificationMetric' if config == 'linear.py' else 'other'
        return {'config': config, **options, 'test_evaluator': {'type': kind}}

    folds = replace(table, splits=('a-fold0', 'a-fold1'))
    with pytest.raises(
        UserError,
        match='linear.py is of a classifier, whose AUROC cannot be pooled over the 2',
    ):
        experiments.plan(folds, resolve_classifier)
    experiments.plan(replace(table, splits=('a-fold0',)), resolve_classifier)
    experiments.plan(folds, resolve)
