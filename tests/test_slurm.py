"""Trainings under a real Slurm: one controller and one node on this machine."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.config import Config

from tests import slurm
from tests.engine import toy
from tests.engine.test_runner import _assert_same_training_state, _load
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def _run(command, folder, environment):
    path = f'{Path(sys.executable).parent}:{environment["PATH"]}'
    more = {'PYTHONPATH': str(ROOT), 'PATH': path, 'OMP_NUM_THREADS': '1'}
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, **environment, **more},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def _write_config(folder, gates=None):
    folder.mkdir()
    gate = dict(type='GateHook', folder=str(folder), iterations=gates, seconds=0.3)
    hooks = [gate] if gates else []
    settings = toy.config(folder / 'unused', custom_hooks=hooks)
    settings['train_dataloader']['batch_size'] = 2  # 4 batches per epoch and rank
    del settings['work_dir']
    Config(settings).dump(folder / 'toy.py')
    return folder / 'work_dirs/toy'


def _submit(folder, environment, *options):
    submit = ['bash', ROOT / 'tools/slurm_train.sh', 'cpu', 'toy', 'toy.py', *options]
    settings = dict(GPUS='0', TASKS='2', CPUS_PER_TASK='1', LOG='run.log')
    done = _run(submit, folder, {**environment, **settings})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def _wait(condition, log):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, log.read_text() if log.exists() else 'no log'
        time.sleep(0.1)


def _told_at(iteration, folder, log, name, command):
    """Tell the training to end while it waits before an iteration."""
    _wait((folder / f'at_{iteration}').exists, log)
    command()
    _wait(lambda: f'{name}: ending soon' in log.read_text(), log)
    (folder / f'pass_{iteration}').touch()


def _state(environment, job):
    return slurm.facts(environment, job)['JobState']


def test_preempted_training_ends_with_the_same_bits(tmp_path, slurm_node):
    """Told by the signal of a time limit, then preempted, it is as if it were not."""
    ended = ('COMPLETED', 'FAILED')
    straight = _write_config(tmp_path / 'straight')
    parts = _write_config(tmp_path / 'parts', gates=[5, 10])
    first = _submit(tmp_path / 'straight', slurm_node)
    second = _submit(tmp_path / 'parts', slurm_node)
    folder, log = tmp_path / 'parts', tmp_path / 'parts/run.log'

    def ask(*command):
        return lambda: slurm.ask(slurm_node, *command, second)

    _told_at(5, folder, log, 'SIGUSR1', ask('scancel', '--signal=USR1'))
    _told_at(10, folder, log, 'SIGTERM', ask('scontrol', 'requeue'))
    for job in (first, second):
        _wait(lambda job=job: _state(slurm_node, job) in ended, log)
    text = log.read_text()
    assert 'SIGUSR1: ended after iteration' in text, text
    assert 'SIGTERM: ended after iteration' in text, text
    assert 'slurm_train.sh cpu toy toy.py --resume' in text
    assert not (parts / 'interrupted.pth').exists()
    ends = [_load(folder / 'epoch_4.pth') for folder in (straight, parts)]
    _assert_same_training_state(*ends)


def test_cancelled_training_is_not_put_back(tmp_path, slurm_node):
    work_dir = _write_config(tmp_path / 'run', gates=[5])
    job = _submit(tmp_path / 'run', slurm_node)
    log = tmp_path / 'run/run.log'
    folder = tmp_path / 'run'
    _told_at(5, folder, log, 'SIGTERM', lambda: slurm.ask(slurm_node, 'scancel', job))
    _wait(lambda: not slurm.ask(slurm_node, 'squeue', '-h', '-j', job), log)
    facts = slurm.facts(slurm_node, job)
    assert (facts['JobState'], facts['Restarts']) == ('CANCELLED', '0')
    assert (work_dir / 'interrupted.pth').exists()
