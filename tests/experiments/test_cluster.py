"""Tables as jobs of a real Slurm; skipped where it is not installed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
DRIVER = """
import sys
from pathlib import Path
from medssl_mm.experiments.cluster import job_states, run_steps_by_slurm
from medssl_mm.experiments import cluster
from medssl_mm.experiments.plan import Step
from medssl_mm.experiments.table import Table
cluster.POLL = 1
folder, script = Path(sys.argv[1]), sys.argv[2]
def step(key, *needs):
    own = folder / key
    command = (sys.executable, script, str(own))
    return Step(
        key=key, kind='frozen', folder=own, config='', options={}, needs=needs, seed=0,
        weights=None, title=key, command=command, outputs=('end',),
    )
steps = {s.key: s for s in (step('a'), step('b', 'a'), step('c'))}
table = Table('t', 't', None, (0,), (1.0,), 0, None, (), (), folder, '', ('', ''), '')
if sys.argv[3:] == ['status']:
    print(job_states(steps))
else:
    print(run_steps_by_slurm(table, steps, lambda line: print(line, flush=True)))
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm.missing()), reason=f'no {slurm.missing()}'),
]


@pytest.fixture
def cluster(tmp_path):
    pytest.importorskip('submitit')
    (tmp_path / 'slurm').mkdir()
    with slurm.one_node(tmp_path / 'slurm') as environment:
        yield environment


def _wait(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def test_steps_go_on_without_who_submitted_them(tmp_path, cluster):
    script, driver = tmp_path / 'train.py', tmp_path / 'driver.py'
    script.write_text(TRAIN)
    driver.write_text(DRIVER)
    folder = tmp_path / 'steps'
    environment = {**os.environ, **cluster, 'PYTHONPATH': str(ROOT)}

    screen = tmp_path / 'screen'

    def start(*words):
        with screen.open('w') as output:
            return subprocess.Popen(
                [sys.executable, driver, folder, script, *words],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def ended(process):
        process.wait(PATIENCE)
        return screen.read_text()

    def job(key):
        return json.loads((folder / key / 'slurm.json').read_text())['job']

    submitter = start()
    _wait((folder / 'a/starts').exists, 'the first job')
    _wait((folder / 'c/starts').exists, 'the third job')
    submitter.send_signal(signal.SIGKILL)
    submitter.wait()
    states = ended(start('status'))
    (folder / 'b').mkdir(exist_ok=True)
    assert "'a': 'RUNNING'" in states and "'b': 'PENDING (Dependency)'" in states
    # Told to end, a step is put back and starts again.
    slurm.ask(cluster, 'scancel', '--signal=USR1', job('a'))
    _wait((folder / 'a/left').exists, 'the signal')
    # Cancelled, it is not; the others are not its business.
    again = start()
    _wait(lambda: f'job {job("c")} (RUNNING): c' in screen.read_text(), 'the third')
    slurm.ask(cluster, 'scancel', job('c'))
    for key in 'ab':
        (folder / key / 'go').touch()
    output = ended(again)
    assert f'job {job("a")} (' in output and 'submitted' not in output
    assert 'FAILED or cancelled: c' in output and '  done: b' in output, output
    assert (folder / 'a/starts').read_text() == 'xx'
    (folder / 'c/go').touch()
    output = ended(start())
    assert 'submitted: c' in output and output.rstrip().endswith('[]'), output
    assert (folder / 'c/end').exists()
