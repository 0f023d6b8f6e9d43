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
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm.missing()), reason=f'no {slurm.missing()}'),
]


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    # Sockets have short names.
    with slurm.one_node(tmp_path_factory.mktemp('slurm')) as environment:
        yield environment


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


def _write_config(folder, **changes):
    folder.mkdir()
    settings = toy.config(folder / 'unused', **changes)
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
        time.sleep(0.3)


def _ended(environment, job):
    state = slurm.ask(environment, 'scontrol', 'show', 'job', '-o', job)
    return 'JobState=COMPLETED' in state or 'JobState=FAILED' in state


def test_preempted_training_ends_with_the_same_bits(tmp_path, cluster):
    """Told by the signal of a time limit, then preempted, it is as if it were not."""
    changes = dict(custom_hooks=[dict(type='PauseHook', seconds=1)])
    straight = _write_config(tmp_path / 'straight')
    parts = _write_config(tmp_path / 'parts', **changes)
    first = _submit(tmp_path / 'straight', cluster)
    second = _submit(tmp_path / 'parts', cluster)
    log = tmp_path / 'parts/run.log'
    _wait((parts / 'epoch_1.pth').exists, log)
    slurm.ask(cluster, 'scancel', '--signal=USR1', second)
    _wait(lambda: 'resumed' in log.read_text(), log)
    slurm.ask(cluster, 'scontrol', 'requeue', second)
    _wait(lambda: _ended(cluster, first) and _ended(cluster, second), log)
    text = log.read_text()
    assert 'SIGUSR1: ended after iteration' in text, text
    assert 'SIGTERM: ended after iteration' in text, text
    assert 'slurm_train.sh cpu toy toy.py --resume' in text
    assert not (parts / 'interrupted.pth').exists()
    ends = [_load(folder / 'epoch_4.pth') for folder in (straight, parts)]
    _assert_same_training_state(*ends)


def test_cancelled_training_is_not_put_back(tmp_path, cluster):
    changes = dict(custom_hooks=[dict(type='PauseHook', seconds=0.5)])
    work_dir = _write_config(tmp_path / 'run', **changes)
    job = _submit(tmp_path / 'run', cluster)
    _wait((work_dir / 'epoch_1.pth').exists, tmp_path / 'run/run.log')
    slurm.ask(cluster, 'scancel', job)
    _wait(lambda: not slurm.ask(cluster, 'squeue', '-h'), tmp_path / 'run/run.log')
    state = slurm.ask(cluster, 'scontrol', 'show', 'job', '-o', job)
    assert 'JobState=CANCELLED' in state and 'Restarts=0' in state
    assert (work_dir / 'interrupted.pth').exists()
