"""What the tools of tables share."""

import argparse
from types import SimpleNamespace

import pytest

from medssl_mm import executors
from medssl_mm.errors import UserError


def _parsed(*words):
    parser = argparse.ArgumentParser()
    executors.add_options(parser)
    args = parser.parse_args(words)
    executors.check_options(args)
    return args


@pytest.mark.parametrize(
    'words, message',
    [
        (['--jobs', '0'], '--jobs must be at least 1, got 0'),
        (['--executor', 'slurm', '--jobs', '2'], 'the queue decides'),
        (['--executor', 'slurm', '--devices', '0', '1'], 'the queue decides'),
    ],
)
def test_options_that_make_no_sense_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        _parsed(*words)


def test_status_shows_no_commands(tmp_path, capsys):
    done = SimpleNamespace(key='a', done=True, title='first', folder=tmp_path)
    gone_on = SimpleNamespace(key='b', done=False, title='second', folder=tmp_path)
    new = SimpleNamespace(key='c', done=False, title='third', folder=tmp_path / 'c')
    args = _parsed('--status')
    assert executors.shows_only(args)
    executors.show_plan(args, None, {s.key: s for s in (done, gone_on, new)})
    assert capsys.readouterr().out.splitlines() == [
        *('[done] first', '[resume] second', '[new] third'),
        '3 steps, 1 finished',
    ]


def test_nothing_runs_when_only_the_table_is_wanted():
    assert executors.run_steps(_parsed('--no-run'), None, {'a': None}) == []


def test_slurm_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    step = SimpleNamespace(key='a', done=False, title='first', folder=tmp_path)
    with pytest.raises(UserError, match='no squeue on PATH: .*--executor local'):
        executors.show_plan(
            _parsed('--executor', 'slurm', '--status'), None, {'a': step}
        )
