"""The console command, from any folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from medssl_mm import __version__, cli
from medssl_mm.errors import COMMAND
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[1]


def _medssl(*arguments, cwd):
    code = 'from medssl_mm.cli import main; main()'
    return subprocess.run(
        [sys.executable, '-c', code, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_list_says_what_each_command_is_for(tmp_path):
    shown = _medssl('--help', cwd=tmp_path).stdout
    for name in ('import', 'train', 'test', 'predict', 'table', 'transfer', 'probe'):
        (line,) = [
            line for line in shown.splitlines() if line.startswith(f'  {name}  ')
        ]
        assert len(line.split()) > 3
    words = ' '.join(shown.split())
    assert 'Segment a volume file or a DICOM folder.' in words
    assert 'Train on N processes per node.' in words


def test_every_tool_of_a_user_is_a_command():
    files = {path.relative_to(ROOT / 'tools') for path in cli.commands().values()}
    tools = {
        path.relative_to(ROOT / 'tools')
        for folder in ('tools', 'tools/analysis')
        for path in (ROOT / folder).glob('*.py')
    }
    assert tools - files == {Path('model_index.py')}


def test_no_heavy_import(tmp_path):
    code = (
        "import sys; sys.argv = ['medssl', '--help']\n"
        'from medssl_mm.cli import main; main()\n'
        "print({'torch', 'mmengine', 'numpy', 'joblib'} & set(sys.modules))"
    )
    command = [sys.executable, '-c', code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == 'set()'


def test_help_has_the_names_of_the_command(tmp_path):
    shown = _medssl('train', '--help', cwd=tmp_path).stdout
    assert shown.startswith('usage: medssl train [-h]')
    assert '  medssl train configs/selfsup' in shown
    assert '  medssl dist-train configs/selfsup' in shown
    assert 'tools/train.py' not in shown


def test_version(tmp_path):
    assert _medssl('--version', cwd=tmp_path).stdout == f'medssl_mm {__version__}\n'


@pytest.mark.parametrize(
    'arguments, code, message',
    [
        (['trian'], 2, "error: there is no command 'trian'; did you mean train?"),
        (['train', 'gone.py'], 2, 'error: config gone.py does not exist'),
        (['train', '--bogus'], 2, 'medssl train: error:'),
        (['dist-train'], 2, 'usage: bash .*dist_train.sh CONFIG N'),
    ],
)
def test_errors_are_those_of_the_tools(tmp_path, arguments, code, message):
    import re

    done = _medssl(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert re.search(message, done.stderr), done.stderr
    assert 'Traceback' not in done.stderr


def test_command_is_kept_for_messages(monkeypatch, tmp_path):
    script = tmp_path / 'train.py'
    script.write_text(
        'import os, pathlib, sys\n'
        f'pathlib.Path({str(tmp_path / "seen")!r}).write_text(repr('
        f'[sys.argv, os.environ[{COMMAND!r}], __name__]))\n'
    )
    monkeypatch.delenv(COMMAND, raising=False)
    monkeypatch.setattr(cli, 'commands', lambda: {'train': script})
    monkeypatch.setattr(sys, 'argv', ['/usr/bin/medssl', 'train', 'a b.py'])
    # What replaces it is that of the process.
    monkeypatch.setitem(sys.modules, '__main__', sys.modules['__main__'])
    cli.main()
    expected = [['medssl train', 'a b.py'], "medssl train 'a b.py'", '__main__']
    assert (tmp_path / 'seen').read_text() == repr(expected)
