import os
import re
import signal
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from medssl_mm.errors import (
    EXIT_PREEMPTED,
    InstallError,
    UserError,
    nothing_to_save,
    run_tool,
)


def test_user_error_is_one_line_and_exit_code_2(capsys):
    def main():
        raise UserError('data/btcv has no dataset.json; import it first')

    with pytest.raises(SystemExit) as stop:
        run_tool(main)
    assert stop.value.code == 2
    streams = capsys.readouterr()
    assert streams.err == ('error: data/btcv has no dataset.json; import it first\n')
    assert streams.out == ''


def _ended(main, capsys):
    with pytest.raises(SystemExit) as stop:
        run_tool(main)
    return stop.value.code, capsys.readouterr().err


def _traceback_of(line):
    path = Path(re.search(r'traceback: ([^;)]+)', line)[1])
    text = path.read_text()
    path.unlink()
    return text


def test_other_errors_are_one_line_and_keep_their_traceback_in_a_file(capsys):
    def main():
        try:
            raise KeyError('first')
        except KeyError:
            raise ZeroDivisionError('a bug\nof two lines') from None

    code, line = _ended(main, capsys)
    assert code == 1 and line.count('\n') == 1
    assert line.startswith('error: unexpected ZeroDivisionError: a bug of two lines (')
    text = _traceback_of(line)
    assert 'Traceback (most recent call last)' in text
    assert "raise ZeroDivisionError('a bug" in text


class Broken(torch.utils.data.Dataset):
    """Fails in the worker."""

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 2

    def __getitem__(self, index):
        try:
            raise OSError('ValueError: not this one')
        except OSError as error:
            raise self.kind('case_7 is broken: read it again') from error


@pytest.mark.parametrize(
    'kind, code, start',
    [
        (UserError, 2, 'error: case_7 is broken: read it again\n'),
        (ValueError, 1, 'error: unexpected ValueError: case_7 is broken: read it'),
        (UnicodeDecodeError, 1, 'error: unexpected TypeError: '),
    ],
)
def test_error_of_a_worker_is_that_of_its_cause(capsys, kind, code, start):
    def main():
        list(torch.utils.data.DataLoader(Broken(kind), num_workers=1))

    ended, line = _ended(main, capsys)
    assert ended == code and line.startswith(start)
    assert line.count('\n') == 1
    if code == 1:
        assert 'in __getitem__' in _traceback_of(line)


def _end_at_once(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_worker_of_a_pool(capsys):
    def main():
        with ProcessPoolExecutor(1) as pool:
            list(pool.map(_end_at_once, [0]))

    code, line = _ended(main, capsys)
    assert code == 1 and 'a worker process ended abruptly' in line
    assert 'BrokenProcessPool' in _traceback_of(line)


def test_system_errors_name_their_file(capsys, tmp_path):
    code, line = _ended(lambda: open(tmp_path / 'absent'), capsys)
    assert code == 1 and line.startswith(f'error: {tmp_path}/absent: No such file')
    _traceback_of(line)


def test_interruption_inside_what_makes_another_error_of_it(capsys):
    def main():
        try:
            raise KeyboardInterrupt
        except BaseException:
            raise SyntaxError('Failed to format the config file: ...')  # noqa: B904

    assert _ended(main, capsys) == (130, 'interrupted\n')


def test_interruption_has_the_code_of_a_shell(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        run_tool(main)
    assert stop.value.code == 130


def test_install_error_is_not_an_import_error():
    """mmengine swallows import errors of the packages it looks up."""
    assert issubclass(InstallError, UserError)
    assert not issubclass(InstallError, ImportError)


@pytest.mark.parametrize('rank', ['0', '1'])
def test_signal_ends_what_has_not_begun(capfd, monkeypatch, rank):
    monkeypatch.setenv('RANK', rank)
    former = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(SystemExit) as stop, nothing_to_save():
        os.kill(os.getpid(), signal.SIGUSR1)
    assert stop.value.code == EXIT_PREEMPTED
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == (rank == '0')
    assert all(line.startswith('SIGUSR1: ended before the run began') for line in lines)
    assert signal.getsignal(signal.SIGUSR1) is former
