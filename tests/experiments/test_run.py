"""Running the steps of a table."""

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
from medssl_mm.files import locked
from medssl_mm.results import summarize
from tests.experiments.conftest import TABLE, log_of, plan
from tests.results.made import write_result
from tests.waiting import PATIENCE

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
experiments.run.tools_folder = lambda: folder / 'slow'
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


def test_training_that_validates_must_leave_a_best(table, fake_tools):
    table = experiments.select(table, rows=['random'], seeds=[0], fractions=[1.0])

    def resolve(config, options):
        hooks = dict(checkpoint=dict(save_best='volume/mDice'))
        return {'config': config, 'val_cfg': {}, 'default_hooks': hooks, **options}

    steps, _ = experiments.plan(table, resolve)
    train, test = steps.values()
    assert (train.best, test.best) == (True, False)
    (error,) = experiments.run_steps(table, steps, report=lambda line: None)
    assert 'ended without a best checkpoint' in error and not train.done
    (train.folder / 'best_volume_mDice_iter_3.pth').touch()
    assert experiments.run_steps(table, steps, report=lambda line: None) == []
    # Found to be lost later: not replaced by the last weights, either.
    (train.folder / 'best_volume_mDice_iter_3.pth').unlink()
    (test.folder / experiments.DONE).unlink()
    (error,) = experiments.run_steps(table, steps, report=lambda line: None)
    assert 'holds no best checkpoint any more' in error
    unvalidated = replace(table, validation=False)
    assert not any(s.best for s in experiments.plan(unvalidated, resolve)[0].values())


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
    assert run.seeds == (0,) and results[0][0].seeds == (0, 1)
    (row,) = summarize([run])
    assert row.score.estimate == pytest.approx((0.5 + (0.1 + 0.3) / 2) / 2)
    assert (row.patients, row.splits, row.protocol) == (2, 2, 'set-2fold')


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


HANGING = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('one line', flush=True)
time.sleep(3600)
"""


def test_step_that_hangs_is_ended_also_where_it_is_deaf(table, fake_tools):
    table = experiments.select(table, rows=['random'], seeds=[0], fractions=[1.0])
    table = replace(table, silence=1.0)
    for name in ('train.py', 'test.py'):
        (fake_tools / 'tools' / name).write_text(HANGING)
    steps, _ = plan(table)
    (error,) = experiments.run_steps(table, steps, report=lambda line: None)
    assert 'wrote no line for 1 s and was ended' in error
    train = next(iter(steps.values()))
    with locked(train.folder) as lock:
        assert lock is not None  # nothing is left of it


def test_step_may_use_the_folder_that_is_locked_for_it(table, fake_tools):
    table = experiments.select(table, rows=['random'], seeds=[0], fractions=[1.0])
    for name in ('train.py', 'test.py'):
        path = fake_tools / 'tools' / name
        claim = 'from medssl_mm.files import claim; claim(folder).close()'
        path.write_text(f'{path.read_text()}\n{claim}\n')
    assert experiments.run_steps(table, plan(table)[0], report=lambda line: None) == []


def test_tools_are_found():
    folder = experiments.tools_folder()
    assert (folder / 'dist_train.sh').is_file()
    mode = Path(folder / 'dist_train.sh').stat().st_mode
    assert mode & stat.S_IXUSR or sys.platform == 'win32'
