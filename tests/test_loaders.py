import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from medssl_mm import loaders
from medssl_mm.errors import UserError
from medssl_mm.loaders import RowsAndImages, keep_apart

ROOT = Path(__file__).resolve().parents[1]


class Numbers:
    def __init__(self, size=10_000):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return torch.full((3,), index)


class Facts(Numbers):
    """What a worker finds: threads of the fork server, and of OpenCV."""

    def __getitem__(self, index):
        import cv2

        server = os.getppid()
        tasks = len(os.listdir(f'/proc/{server}/task'))
        main = multiprocessing.parent_process().pid
        return [server != main, tasks, cv2.getNumThreads(), torch.get_num_threads()]


class Seen(Numbers):
    """Remembers what was asked for."""

    def __init__(self, size):
        super().__init__(size)
        self.seen = []

    def __getitem__(self, index):
        self.seen.append(index)
        return index


class Processes(Numbers):
    """Who loads, and who has started that."""

    def __getitem__(self, index):
        return [os.getpid(), os.getppid()]


class Unpicklable(Numbers):
    def __init__(self):
        super().__init__()
        self.transform = lambda image: image


def loader_of(data, workers=1, timeout=60, **options):
    options = {**loaders.worker_options(workers), **options}
    loader = torch.utils.data.DataLoader(data, **options)
    return loaders.watch(loader, 'val', timeout)


def test_workers_come_from_a_process_with_one_thread():
    (facts,) = loader_of(Facts(1), batch_size=None)
    assert facts == [True, 1, 1, 1]


@pytest.mark.parametrize('persistent', [False, True])
def test_batches_are_those_of_one_process(persistent):
    loader = loader_of(Numbers(7), 2, batch_size=2, persistent_workers=persistent)
    alone = list(torch.utils.data.DataLoader(Numbers(7), batch_size=2))
    for _ in range(2):
        epoch = list(loader)
        assert len(epoch) == len(loader) == 4
        assert all(map(torch.equal, epoch, alone))


@pytest.mark.parametrize('workers', [0, 1, 2])
@pytest.mark.parametrize('persistent', [False, True])
def test_first_pass_may_begin_later(workers, persistent):
    options = dict(persistent_workers=True) if persistent and workers else {}
    loader = loader_of(Seen(7), workers, batch_size=2, **options)
    loaders.skip_batches(loader, 3)
    assert [batch.tolist() for batch in loader] == [[6]]
    assert len(loader) == 4
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5], [6]]
    loaders.skip_batches(loader, 4)
    assert list(loader) == []
    loaders.skip_batches(loader, 2)
    assert [batch.tolist() for batch in loader] == [[4, 5], [6]]


def test_what_is_left_out_is_not_loaded():
    data = Seen(8)
    loader = loader_of(data, 0, batch_size=2)
    loaders.skip_batches(loader, 3)
    list(loader)
    assert data.seen == [6, 7]


def signal_all(number):
    """Send a signal to worker and server of a loader, which must not heed it."""
    loader = loader_of(Processes(6), 1, batch_size=None, prefetch_factor=1)
    batches = iter(loader)
    worker, server = next(batches)
    assert worker != os.getpid() != server
    # From another process: that of the loader may end its worker.
    subprocess.run(['kill', f'-{int(number)}', str(worker), str(server)], check=True)
    assert list(batches) == [[worker, server]] * 5
    # It ends with the loader all the same.
    del batches
    end = time.monotonic() + 60
    while Path(f'/proc/{worker}').exists():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_signal_to_all_processes_leaves_the_workers():
    """The run decides what it means, and may need further batches.

    In a process of its own: here another test may have started the server.
    """
    code = (
        'from tests import test_loaders as t\n'
        'for number in t.loaders.GROUP_SIGNALS:\n'
        '    t.signal_all(number)\n'
        '    print("heeded by the run alone:", number.name, flush=True)\n'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert [line.split()[-1] for line in result.stdout.splitlines()] == [
        number.name for number in loaders.GROUP_SIGNALS
    ]


def test_data_that_no_worker_can_get():
    with pytest.raises(UserError, match=r'val loader .* sent .*num_workers=0'):
        next(iter(loader_of(Unpicklable())))
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(Unpicklable())
    loader = torch.utils.data.DataLoader(Unpicklable(), **loaders.worker_options(1))
    with pytest.raises(UserError, match=r'probe loader .*set MyHook\.num_workers=0'):
        next(iter(loaders.watch(loader, 'probe', 0, 'MyHook')))


def signal_a_worker(number, persistent, timeout):
    loader = loader_of(Numbers(), 1, persistent_workers=persistent)
    batches = iter(loader)
    next(batches)  # a busy machine may need long for the first one
    if timeout:
        loader.watchdog.patience = timeout
    (worker,) = batches._batches._workers
    os.kill(worker.pid, number)
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        for _ in batches:
            pass
    worker.join(10)
    assert worker.exitcode == -signal.SIGKILL
    return str(caught.value), time.monotonic() - started


@pytest.mark.slow
@pytest.mark.parametrize('persistent', [False, True])
def test_killed_worker_ends_the_run(persistent):
    message, _ = signal_a_worker(signal.SIGKILL, persistent, timeout=0)
    assert 'the val loader lost a worker: process' in message
    assert 'killed by signal 9' in message and 'memory was short' in message
    assert 'val_dataloader.num_workers' in message and '--resume' in message


class EndsTheProcess(Numbers):
    def __getitem__(self, index):
        os._exit(3)


@pytest.mark.slow
def test_memory_is_not_blamed_for_a_worker_that_ended_by_itself():
    with pytest.raises(UserError, match=r'ended with code 3') as caught:
        list(loader_of(EndsTheProcess(), 1))
    assert 'memory' not in str(caught.value)
    assert 'look for the cause with val_dataloader.num_workers=0' in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize('persistent', [False, True])
def test_frozen_worker_ends_the_run(persistent):
    message, seconds = signal_a_worker(signal.SIGSTOP, persistent, timeout=3)
    assert seconds >= 3
    assert re.search(r'the val loader has had no batch for \d+ s', message)
    assert 'env_cfg.loader_timeout' in message and '--resume' in message


@pytest.mark.slow
def test_nothing_is_left_of_a_killed_run(tmp_path):
    code = (
        'import os, signal\n'
        'from tests.test_loaders import Numbers, loader_of\n'
        'if __name__ == "__main__":\n'
        '    batches = iter(loader_of(Numbers(), 2))\n'
        '    next(batches)\n'
        '    workers = [w.pid for w in batches._batches._workers]\n'
        '    parents = {open(f"/proc/{pid}/stat").read().split()[3]'
        ' for pid in workers}\n'
        '    print(*workers, *parents, flush=True)\n'
        '    os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    (tmp_path / 'run.py').write_text(code)
    done = subprocess.run(
        [sys.executable, tmp_path / 'run.py'],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    processes = done.stdout.split()
    assert done.returncode == -signal.SIGKILL and len(processes) == 3
    # subprocess.run has read to the end of the pipe, which they all hold.
    until = time.monotonic() + 20
    while any(map(is_running, processes)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [pid for pid in processes if is_running(pid)]


def is_running(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')')[1].split()[0] != 'Z'
    except OSError:
        return False


@pytest.mark.parametrize(
    ('host', 'types', 'expected'),
    [
        ('mmselfsup', ['medssl_mm.A', 'medssl_mm.B'], ['own']),
        ('mmseg', ['medssl_mm.A', 'medssl_mm.B'], ['own', 'mmseg.structures']),
        ('mmselfsup', ['medssl_mm.A', 'Resize'], ['own', 'mmselfsup.datasets']),
    ],
)
def test_server_imports_what_the_data_use(monkeypatch, host, types, expected):
    asked = []
    monkeypatch.setattr(loaders, 'start_server', asked.append)
    dataset = dict(type=types[0], pipeline=[dict(type=types[1])])
    config = dict(
        default_scope=host,
        custom_imports=dict(imports='own'),
        train_dataloader=dict(num_workers=1, dataset=dataset),
        test_dataloader=dict(num_workers=0, dataset=dict(type='Other')),
    )
    loaders.start_server_for(config)
    assert asked == [expected]
    config['train_dataloader']['num_workers'] = 0
    loaders.start_server_for(config)
    assert len(asked) == 1


def test_rows_and_first_views():
    samples = [
        dict(inputs=[torch.full((1, 2, 2), float(n)), torch.zeros(1, 2, 2)])
        for n in range(3)
    ]
    data = RowsAndImages(samples)
    rows, images = keep_apart([data[2], data[0]])
    assert rows == [2, 0] and [float(image.max()) for image in images] == [2, 0]


def test_workers_import_no_engine():
    code = (
        'import sys, medssl_mm.loaders\n'
        'print([name for name in sys.modules if name.startswith("medssl_mm.engine")])'
    )
    found = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == '[]'
