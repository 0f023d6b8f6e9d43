"""A training that is told to end goes on as if nothing had happened."""

import os
import signal
import sys
import time

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, RUNNERS

from medssl_mm.engine import launch, preemption
from medssl_mm.engine.checkpoints import INTERRUPTED
from medssl_mm.errors import COMMAND, EXIT_PREEMPTED
from medssl_mm.functional import distributed
from tests.distributed import run_alone, run_processes
from tests.engine import toy
from tests.engine.test_runner import _assert_same_training_state, _load


@HOOKS.register_module(force=True)
class SignalHook(Hook):
    """Sends a signal to its process, as Slurm would, at a stage of an iteration."""

    def __init__(self, iteration, stage='before_train_iter', number='SIGUSR1', **more):
        self.number = getattr(signal, number)
        self.rank, self.pause = more.get('rank', 0), more.get('pause')
        self.then = more.get('then', 0)
        setattr(self, stage, lambda runner, **_: self._send(runner, iteration))

    def _send(self, runner, iteration):
        if runner.iter == iteration and distributed.rank() == self.rank:
            self.rank = None  # once
            os.kill(os.getpid(), self.number)
            time.sleep(self.then)
            if self.pause:
                time.sleep(self.pause)
                os.kill(os.getpid(), self.number)


def _train(settings, resume=None):
    runner = launch.make_runner(Config(settings), resume=resume)
    return preemption.train(runner, interval=0)


def _train_and_exit(settings):
    sys.exit(_train(settings))


def _told(**settings):
    return dict(custom_hooks=[dict(type='SignalHook', **settings)])


def _quiet(settings):
    """No draws in workers: those begin anew when a run goes on inside an epoch."""
    settings['train_dataloader']['dataset']['noise'] = False
    return settings


def _assert_same_end(first, second):
    first, second = _load(first), _load(second)
    assert first['meta']['iter'] == second['meta']['iter']
    _assert_same_training_state(first, second)


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
    """Folders of uninterrupted runs."""
    folders = {}

    def run(by_epoch, num_workers):
        key = by_epoch, num_workers
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp('straight')
            toy.train(_config(folders[key], *key))
        return folders[key]

    return run


def _config(folder, by_epoch, num_workers):
    made = toy.config(folder, by_epoch, num_workers)
    return _quiet(made) if num_workers else made


@pytest.mark.slow
@pytest.mark.parametrize(
    'by_epoch, num_workers, settings',
    [
        (True, 0, dict(iteration=9)),
        (True, 0, dict(iteration=11, number='SIGTERM')),  # the last of an epoch
        (True, 1, dict(iteration=9, number='SIGINT')),
        (True, 0, dict(iteration=8, stage='before_val_iter')),
        (True, 0, dict(iteration=8, stage='before_save_checkpoint')),
        (False, 0, dict(iteration=9)),
        (False, 1, dict(iteration=9)),
        (False, 0, dict(iteration=7)),  # a validation is due
    ],
)
def test_it_goes_on_exactly(tmp_path, straight, by_epoch, num_workers, settings):
    parts = _config(tmp_path, by_epoch, num_workers)
    told = dict(parts, **_told(**settings))
    assert run_alone(_train_and_exit, told) == EXIT_PREEMPTED
    assert (tmp_path / INTERRUPTED).exists()
    last = 'epoch_4.pth' if by_epoch else 'iter_16.pth'
    assert not (tmp_path / last).exists()
    assert _train(parts, 'auto') == 0
    _assert_same_end(straight(by_epoch, num_workers) / last, tmp_path / last)
    assert not (tmp_path / INTERRUPTED).exists()


def test_no_iteration_is_done_twice(tmp_path, capfd):
    settings = dict(toy.config(tmp_path), **_told(iteration=9))
    assert _train(settings) == EXIT_PREEMPTED
    error = capfd.readouterr().err
    assert 'SIGUSR1: ending soon' in error
    assert 'SIGUSR1: ended after iteration 10 of 16; no iteration is lost' in error
    saved = _load(tmp_path / INTERRUPTED)
    assert saved['meta']['epoch_progress'] == dict(batches_done=2, batches=4)
    assert saved['state_dict']['steps'] == 10


def test_accumulated_gradients_are_used_first(tmp_path):
    settings = dict(toy.config(tmp_path), **_told(iteration=4))
    settings['optim_wrapper']['accumulative_counts'] = 3
    assert _train(settings) == EXIT_PREEMPTED
    assert _load(tmp_path / INTERRUPTED)['meta']['iter'] == 6


def test_second_signal_ends_at_once(tmp_path):
    told = _told(iteration=5, number='SIGTERM', pause=1.2)
    settings = dict(toy.config(tmp_path), **told)
    assert run_alone(_train_and_exit, settings) == -signal.SIGTERM
    assert not (tmp_path / INTERRUPTED).exists()


def test_signal_of_another_kind_is_no_second_one(tmp_path):
    """Slurm warns, and then whoever started the training passes it on."""
    hooks = [
        dict(type='SignalHook', iteration=5, number='SIGUSR1', then=1.2),
        dict(type='SignalHook', iteration=5, number='SIGTERM'),
    ]
    settings = dict(toy.config(tmp_path), custom_hooks=hooks)
    assert run_alone(_train_and_exit, settings) == EXIT_PREEMPTED


def test_signal_of_terminal_and_launcher_is_one(tmp_path):
    told = _told(iteration=5, number='SIGTERM', pause=0.1)
    settings = dict(toy.config(tmp_path), **told)
    assert run_alone(_train_and_exit, settings) == EXIT_PREEMPTED


def test_training_that_ends_anyway_is_finished(tmp_path):
    settings = dict(toy.config(tmp_path, by_epoch=False), **_told(iteration=15))
    assert run_alone(_train_and_exit, settings) == 0
    assert not (tmp_path / INTERRUPTED).exists()


def test_handlers_are_those_of_before(tmp_path):
    former = signal.getsignal(signal.SIGTERM)
    _train(toy.config(tmp_path))
    assert signal.getsignal(signal.SIGTERM) is former


def test_other_number_of_batches_continues_at_the_same_share(tmp_path, capfd):
    settings = dict(toy.config(tmp_path), **_told(iteration=9))
    assert _train(settings) == EXIT_PREEMPTED
    settings = toy.config(tmp_path)
    settings['train_dataloader']['batch_size'] = 2
    _train(settings, 'auto')
    assert 'after 2 of 4 batches of an epoch that has 8 now' in capfd.readouterr().out
    assert _load(tmp_path / 'epoch_3.pth')['meta']['iter'] == 3 * 8


def _train_on_two(work_dir, resume, **changes):
    settings = toy.config(
        work_dir,
        launcher='pytorch',
        randomness=dict(seed=3, diff_rank_seed=True),
        resume=resume,
        **changes,
    )
    return preemption.train(RUNNERS.build(Config(settings)), interval=0)


def test_two_processes_leave_together_and_go_on_exactly(tmp_path):
    straight, parts = str(tmp_path / 'straight'), str(tmp_path / 'parts')
    assert run_processes(_train_on_two, 2, straight, False) == [0, 0]
    told = _told(iteration=2, rank=1)  # only one of them is told
    codes = run_processes(_wrapped, 2, parts, told)
    assert codes == [EXIT_PREEMPTED] * 2
    assert _load(tmp_path / 'parts' / INTERRUPTED)['meta']['iter'] == 3
    assert run_processes(_train_on_two, 2, parts, 'auto') == [0, 0]
    end = tmp_path / 'straight' / 'epoch_4.pth'
    _assert_same_end(end, tmp_path / 'parts' / 'epoch_4.pth')
    first, second = _load(end)['random_states']
    assert not torch.equal(first['torch'], second['torch'])


def _wrapped(work_dir, told):
    return _train_on_two(work_dir, False, **told)


@pytest.mark.parametrize(
    'words, environment, expected',
    [
        (['t.py', 'a b.py'], '', "python t.py 'a b.py' --resume"),
        (['t.py', 'a.py', '--resume'], '', 'python t.py a.py --resume'),
        (['t.py', '--resume', '--amp'], '', 'python t.py --resume --amp'),
        (['t.py', '--resume', 'x.pth'], '', 'python t.py --resume x.pth --resume'),
        (['t.py'], 'bash dist_train.sh a.py 2', 'bash dist_train.sh a.py 2 --resume'),
    ],
)
def test_command_to_go_on(monkeypatch, words, environment, expected):
    monkeypatch.setenv(COMMAND, environment)
    assert preemption.command_to_go_on(words) == expected


def _ignore_and_exit():
    preemption.ignore_signals()
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        os.kill(os.getpid(), number)
    sys.exit(EXIT_PREEMPTED)


def test_code_stays_when_a_launcher_ends_the_rest():
    assert run_alone(_ignore_and_exit) == EXIT_PREEMPTED
