"""torchrun passes signals on, and the code of those that it started."""

import os
import signal
import subprocess
import sys
import time

import pytest

from medssl_mm.errors import EXIT_PREEMPTED
from tests.waiting import PATIENCE

SCRIPT = """
import os, pathlib, signal, sys, time
told = []
for name in ('SIGINT', 'SIGTERM', 'SIGUSR1'):
    signal.signal(getattr(signal, name), lambda number, frame: told.append(number))
pathlib.Path(sys.argv[1], os.environ['RANK']).touch()
while not told:
    time.sleep(0.05)
time.sleep(0.5)
pathlib.Path(sys.argv[1], os.environ['RANK']).write_text(str(told[0]))
os._exit(int(sys.argv[2]))
"""


def _start(folder, code):
    script = folder / 'script.py'
    script.write_text(SCRIPT)
    command = [sys.executable, '-m', 'medssl_mm.compat.torchrun', '--standalone']
    return subprocess.Popen(
        [*command, '--nproc-per-node=2', script, folder, str(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, code, expected',
    [('SIGUSR1', EXIT_PREEMPTED, EXIT_PREEMPTED), ('SIGINT', 0, 0), ('SIGTERM', 3, 1)],
)
def test_signal_and_code_are_passed_on(tmp_path, name, code, expected):
    process = _start(tmp_path, code)
    end = time.monotonic() + PATIENCE
    while not all((tmp_path / rank).exists() for rank in '01'):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    number = getattr(signal, name)
    process.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == expected, output
    told = [(tmp_path / rank).read_text() for rank in '01']
    assert str(number.value) in told
    if code in (0, EXIT_PREEMPTED):
        assert 'Traceback' not in output


@pytest.mark.parametrize(
    'name, code', [('SIGTERM', EXIT_PREEMPTED), ('SIGINT', 'KeyboardInterrupt')]
)
def test_signal_before_the_processes_is_not_lost(name, code):
    script = (
        'import signal, sys\n'
        'from medssl_mm.compat import torchrun\n'
        f'torchrun._pass_on(signal.{name}, None)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True
    )
    assert done.returncode == code or code in done.stderr
