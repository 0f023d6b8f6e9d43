import os
import subprocess
import sys
from pathlib import Path

import joblib
import pytest

from medssl_mm import cores

ROOT = Path(__file__).resolve().parents[1]
NAMES = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'LOKY_MAX_CPU_COUNT')


def clean(**variables):
    return {
        **{name: value for name, value in os.environ.items() if name not in NAMES},
        **variables,
    }


def test_affinity_is_obeyed():
    code = (
        'import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); '
        'from medssl_mm import cores; print(cores.available())'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], env=clean(), capture_output=True, text=True
    )
    assert done.stdout.split() == ['1'], done.stderr


@pytest.mark.parametrize(
    ('jobs', 'processes', 'parts'),
    [
        (2, 0, [(4, 4), (4, 4)]),
        (3, 1, [(3, 3), (3, 3), (2, 2)]),  # part, threads of a process
        (2, 2, [(4, 2), (4, 2)]),
        (9, 1, [(1, 1)] * 9),
    ],
)
def test_parts_of_eight_cores(monkeypatch, jobs, processes, parts):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for number, (part, threads) in enumerate(parts):
        assert cores.job_environment(jobs, number, processes, cores=8) == {
            'LOKY_MAX_CPU_COUNT': str(part),
            'OMP_NUM_THREADS': str(threads),
            'MKL_NUM_THREADS': str(threads),
        }
    assert cores.job_environment(1, 0, processes, cores=8) == {}


def test_what_the_user_has_set_stays():
    assert cores.thread_environment(2, 8, {'OMP_NUM_THREADS': '3'}) == {
        'OMP_NUM_THREADS': '3',
        'MKL_NUM_THREADS': '3',
    }
    assert cores.thread_environment(2, 8, {'MKL_NUM_THREADS': '7'}) == {
        'OMP_NUM_THREADS': '4',
        'MKL_NUM_THREADS': '7',
    }


def test_workers_of_a_job_share_its_part(monkeypatch):
    monkeypatch.delenv('LOKY_MAX_CPU_COUNT', raising=False)
    assert cores.workers_within(99) == 99
    monkeypatch.setenv('LOKY_MAX_CPU_COUNT', '1')
    assert [cores.workers_within(n) for n in (0, 1, 4)] == [0, 1, 1]
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    assert cores.workers_within(4) == 1


@pytest.mark.parametrize(
    ('variables', 'processes'), [({}, 1), ({}, 2), ({'OMP_NUM_THREADS': '5'}, 2)]
)
def test_processes_of_a_launcher_share_the_part(tmp_path, variables, processes):
    tools = tmp_path / 'tools'
    tools.mkdir()
    for name in ('dist_train.sh', 'dist_run.sh'):
        (tools / name).write_text((ROOT / 'tools' / name).read_text())
    (tools / 'train.py').write_text(
        'import os, pathlib\n'
        'pathlib.Path(__file__).with_name(os.environ["RANK"]).write_text(\n'
        f'    " ".join(os.environ[name] for name in {NAMES[:2]}))\n'
    )
    (tmp_path / 'medssl_mm').symlink_to(ROOT / 'medssl_mm')
    done = subprocess.run(
        ['bash', tools / 'dist_train.sh', 'config.py', str(processes)],
        env=clean(PYTHON=sys.executable, **variables),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected = variables.get('OMP_NUM_THREADS') or cores.available() // processes or 1
    for rank in range(processes):
        assert (tools / str(rank)).read_text() == f'{expected} {expected}'


def threads_of_torch():
    import torch

    return torch.get_num_threads()


def test_threads_in_the_pools_of_the_tools(monkeypatch):
    """prepare_data.py and probe.py leave the division to joblib."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    with joblib.parallel_config('loky', n_jobs=2):
        seen = joblib.Parallel()(joblib.delayed(threads_of_torch)() for _ in range(4))
    assert set(seen) == {max(1, cores.available() // 2)}
