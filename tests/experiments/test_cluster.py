"""Tables as jobs of a real Slurm; skipped where it is not installed."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medssl_mm.experiments import cluster
from medssl_mm.experiments.plan import Step
from medssl_mm.experiments.table import Table
from tests import slurm
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
TRAIN = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
folder.joinpath('starts').open('a').write('x')
def leave(*_):
    folder.joinpath('left').touch()
    sys.exit(75)
for name in ('SIGUSR1', 'SIGTERM'):
    signal.signal(getattr(signal, name), leave)
end = folder / 'go'
while not end.exists():
    time.sleep(0.1)
# What the next step asks for.
folder.joinpath('best_score_epoch_1.pth').touch()
folder.joinpath('epoch_1.pth').touch()
folder.joinpath('last_checkpoint').write_text('epoch_1.pth')
folder.joinpath('end').touch()
"""
# What submits the steps, to be killed at it.
DRIVER = """
import sys
from tests.experiments.test_cluster import run
run(*sys.argv[1:], print)
"""
pytestmark = pytest.mark.slow


def _steps(folder, script):
    def step(key, *needs):
        own = Path(folder) / key
        command = (sys.executable, str(script), str(own))
        return Step(
            **dict(key=key, kind='frozen', folder=own, config='', options={}),
            **dict(needs=needs, seed=0, weights=None, title=key),
            **dict(command=command, outputs=('end',)),
        )

    return {s.key: s for s in (step('a'), step('b', 'a'), step('c'))}


def run(folder, script, report):
    """Submit the steps and wait for them."""
    none = ((), (), Path(folder), '', ('', ''), '')
    table = Table('t', 't', None, (0,), (1.0,), 0, None, *none)
    return cluster.run_steps_by_slurm(table, _steps(folder, script), report)


@pytest.fixture
def one_node(slurm_node, monkeypatch):
    pytest.importorskip('submitit')
    monkeypatch.setattr(cluster, 'POLL', 1)
    for name, value in {**slurm_node, 'PYTHONPATH': str(ROOT)}.items():
        monkeypatch.setenv(name, value)


def _wait(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def test_steps_go_on_without_who_submitted_them(tmp_path, one_node):
    script = tmp_path / 'train.py'
    script.write_text(TRAIN)
    folder = tmp_path / 'steps'

    def job(key):
        return json.loads((folder / key / 'slurm.json').read_text())['job']

    submitter = subprocess.Popen([sys.executable, '-c', DRIVER, folder, script])
    try:
        _wait((folder / 'a/starts').exists, 'the first job')
        _wait((folder / 'c/starts').exists, 'the third job')
    finally:
        submitter.kill()
        submitter.wait()
    states = cluster.job_states(_steps(folder, script))
    assert states['a'] == 'RUNNING' and states['b'] == 'PENDING (Dependency)'
    # Told to end, a step is put back and starts again.
    slurm.ask({}, 'scancel', '--signal=USR1', job('a'))
    _wait((folder / 'a/left').exists, 'the signal')
    # Cancelled, it is not; the others are not its business.
    lines = []
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(run, folder, script, lines.append)
        _wait(lambda: f'job {job("c")} (RUNNING): c' in lines, 'the third')
        slurm.ask({}, 'scancel', job('c'))
        (folder / 'b').mkdir(exist_ok=True)
        for key in 'ab':
            (folder / key / 'go').touch()
        errors = again.result(PATIENCE)
    output = '\n'.join(lines)
    assert f'job {job("a")} (' in output and 'submitted' not in output
    assert 'FAILED or cancelled: c' in output and '  done: b' in output, output
    assert len(errors) == 1 and errors[0].startswith('c: job'), errors
    assert (folder / 'a/starts').read_text() == 'xx'
    (folder / 'c/go').touch()
    lines.clear()
    assert run(folder, script, lines.append) == []
    assert f'job {job("c")} submitted: c' in lines
    assert (folder / 'c/end').exists()
