"""The launch tools, run as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from medssl_mm.errors import EXIT_PREEMPTED
from tests.engine import toy

TORCHRUN = ['-m', 'medssl_mm.compat.torchrun', '--nproc-per-node=2']
ROOT = Path(__file__).parents[1]


def _run(command, folder, **environment):
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'PATH': path} | environment,
        capture_output=True,
        text=True,
    )


def _write_config(folder, **changes):
    settings = toy.config(folder / 'unused', **changes)
    del settings['work_dir']
    Config(settings).dump(folder / 'toy.py')


@pytest.mark.parametrize('tool', ['train.py', 'test.py'])
def test_help_shows_an_example(tmp_path, tool):
    done = _run([sys.executable, ROOT / 'tools' / tool, '--help'], tmp_path)
    assert done.returncode == 0
    assert f'python tools/{tool} configs/' in done.stdout


@pytest.mark.parametrize('tool', ['train.py', 'test.py'])
def test_help_imports_no_torch(tmp_path, tool):
    code = (
        'import runpy, sys\n'
        f"sys.argv = ['{tool}', '--help']\n"
        'try:\n'
        f'    runpy.run_path({str(ROOT / "tools" / tool)!r}, '
        "run_name='__main__')\n"
        'except SystemExit:\n'
        "    print('torch' in sys.modules, file=sys.stderr)\n"
    )
    done = _run([sys.executable, '-c', code], tmp_path)
    assert done.stderr.strip() == 'False'


def test_bad_input_ends_in_one_message(tmp_path):
    done = _run([sys.executable, ROOT / 'tools' / 'train.py', 'gone.py'], tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith('error: config gone.py does not exist')
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGUSR1'])
@pytest.mark.parametrize('start', [['tools/train.py'], TORCHRUN])
def test_signal_before_anything_has_begun(tmp_path, name, start):
    """While the libraries are loaded, there is nothing to save; try again."""
    (tmp_path / 'torch.py').write_text(
        f'import os, signal\nos.kill(os.getpid(), signal.{name})\n'
        "raise ArithmeticError('loaded all the same')\n"
    )
    command = [sys.executable, *start, 'toy.py', '--work-dir', tmp_path / 'run']
    path = f'{tmp_path}{os.pathsep}{ROOT}'
    done = _run(command, ROOT, PYTHONPATH=path)
    assert done.returncode == EXIT_PREEMPTED, done.stderr
    assert done.stderr == (
        f'{name}: ended before the run began; nothing is lost, the same command '
        'starts it\n'
    )
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_two_processes_train_resume_and_test(tmp_path):
    _write_config(tmp_path)
    command = ['bash', ROOT / 'tools' / 'dist_train.sh', 'toy.py', 2]
    done = _run([*command, '--seed', 5], tmp_path)
    assert done.returncode == 0, done.stderr
    assert '2 process(es)' in done.stdout
    work_dir = tmp_path / 'work_dirs' / 'toy'
    end = torch.load(work_dir / 'epoch_4.pth', weights_only=True)
    assert end['meta']['seed'] == 5
    # Cut the newest one short: the run goes on from the one before it.
    path = work_dir / 'epoch_4.pth'
    path.write_bytes(path.read_bytes()[:-1])
    done = _run([*command, '--seed', 5, '--resume'], tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'resumed epoch: 3' in done.stdout
    again = torch.load(path, weights_only=True)
    for name, value in end['state_dict'].items():
        assert torch.equal(value, again['state_dict'][name]), name
    done = _run(
        [sys.executable, ROOT / 'tools' / 'test.py', 'toy.py', path]
        + ['--out', 'metrics.json', '--work-dir', 'test'],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert set(metrics) == {'mean'}


@pytest.mark.parametrize(
    ('script', 'arguments', 'message'),
    [
        ('dist_train.sh', ['toy.py'], 'usage: bash .* CONFIG N'),
        ('dist_train.sh', ['toy.py', 'two'], 'usage: bash .* CONFIG N'),
        ('dist_test.sh', ['toy.py', 'a.pth'], 'CONFIG CHECKPOINT N'),
        ('slurm_train.sh', ['part'], 'PARTITION JOB_NAME CONFIG'),
    ],
)
def test_shell_tools_show_their_usage(tmp_path, script, arguments, message):
    import re

    done = _run(['bash', ROOT / 'tools' / script, *arguments], tmp_path)
    assert done.returncode == 2
    assert re.search(message, done.stderr)


def test_several_nodes_need_an_address(tmp_path):
    done = _run(
        ['bash', ROOT / 'tools' / 'dist_train.sh', 'toy.py', 1],
        tmp_path,
        NNODES='2',
    )
    assert done.returncode != 0
    assert 'set MASTER_ADDR to the first node' in done.stderr
