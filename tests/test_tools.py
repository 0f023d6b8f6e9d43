"""Every tool explains itself, quickly, and ends well on bad input."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYTHON_TOOLS = sorted(
    path
    for path in (ROOT / 'tools').rglob('*.py')
    if "__name__ == '__main__'" in path.read_text()
)
SHELL_TOOLS = sorted((ROOT / 'tools').glob('*.sh'))
HEAVY = {
    'torch',
    'torchvision',
    'mmengine',
    'mmcv',
    'mmseg',
    'mmselfsup',
    'monai',
    'matplotlib',
    'lightly',
}


def ids(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


def run(*command, cwd=None, **environment):
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
        env={**os.environ, 'PYTHONPATH': str(ROOT), **environment},
    )


@pytest.mark.parametrize('path', PYTHON_TOOLS, ids=ids(PYTHON_TOOLS))
def test_help_explains_without_heavy_imports(path, tmp_path):
    code = (
        'import runpy, sys\n'
        f'sys.argv = [{str(path)!r}, "--help"]\n'
        'try:\n'
        f'    runpy.run_path({str(path)!r}, run_name="__main__")\n'
        'except SystemExit as end:\n'
        f'    heavy = sorted({HEAVY!r} & set(sys.modules))\n'
        '    print("HEAVY:", heavy)\n'
        '    sys.exit(end.code)\n'
    )
    result = run(sys.executable, '-c', code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert 'HEAVY: []' in result.stdout, result.stdout.splitlines()[-1]
    assert 'usage:' in result.stdout
    assert 'example' in result.stdout.lower()
    assert f'tools/{path.relative_to(ROOT / "tools")}' in result.stdout


@pytest.mark.parametrize('path', PYTHON_TOOLS, ids=ids(PYTHON_TOOLS))
def test_unknown_option_is_refused(path, tmp_path):
    result = run(sys.executable, path, '--no-such-option', cwd=tmp_path)
    assert result.returncode == 2
    assert 'Traceback' not in result.stderr


@pytest.mark.parametrize('path', SHELL_TOOLS, ids=ids(SHELL_TOOLS))
def test_shell_syntax(path):
    result = run('bash', '-n', path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize('name', ['setup.sh', 'test.sh', 'demo.sh'])
def test_commands_explain_themselves(name, tmp_path):
    result = run('bash', ROOT / 'tools' / name, '--help', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f'bash tools/{name} [' in result.stdout


@pytest.mark.parametrize('name', ['dist_train.sh', 'dist_test.sh'])
def test_launchers_say_how_to_call_them(name):
    result = run('bash', ROOT / 'tools' / name)
    assert result.returncode != 0 and 'usage:' in result.stderr


def test_setup_without_python_says_what_to_install(tmp_path):
    for name in ('bash', 'dirname', 'mkdir', 'basename', 'cat', 'sed'):
        (tmp_path / name).symlink_to(
            run('bash', '-c', f'command -v {name}').stdout.strip()
        )
    result = run(
        tmp_path / 'bash',
        ROOT / 'tools/setup.sh',
        '--venv',
        tmp_path / 'venv',
        PATH=str(tmp_path),
        MEDSSL_PYTHON='',
    )
    assert result.returncode != 0
    assert 'no Python 3.10, 3.11 or 3.12 found' in result.stderr
    assert 'apt install' in result.stderr
    assert not (tmp_path / 'venv').exists()


def test_setup_skips_a_python_that_does_not_run(tmp_path):
    """Version managers put names on PATH whose version is not installed."""
    shim = tmp_path / 'python3.12'
    shim.write_text('#!/bin/sh\necho not installed >&2\nexit 127\n')
    shim.chmod(0o755)
    result = run(
        'bash',
        '-c',
        f'source {ROOT}/tools/setup.sh && medssl_find_python',
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
        MEDSSL_PYTHON='',
    )
    assert result.returncode == 0
    assert str(tmp_path) not in result.stdout and result.stdout.strip()


def free_disk(folder, gigabytes):
    """Return a PATH on which df reports so much free space."""
    folder.mkdir()
    fake = folder / 'df'
    fake.write_text(
        f'#!/bin/sh\necho Filesystem\necho "disk 1 1 {gigabytes * 1024**2} 50% /"\n'
    )
    fake.chmod(0o755)
    return f'{folder}:{os.environ["PATH"]}'


def test_setup_without_room_says_so(tmp_path):
    result = run(
        'bash',
        ROOT / 'tools/setup.sh',
        '--venv',
        tmp_path / 'venv',
        PATH=free_disk(tmp_path / 'bin', 2),
    )
    assert result.returncode != 0
    assert 'only 2.0 GB are free' in result.stderr
    assert '6.6 GB are needed' in result.stderr


def test_setup_counts_what_is_installed_already(tmp_path):
    (tmp_path / 'venv').mkdir()
    with (tmp_path / 'venv/wheel').open('wb') as file:
        file.write(bytes(300 * 1024**2))
    result = run(
        'bash',
        ROOT / 'tools/setup.sh',
        '--venv',
        tmp_path / 'venv',
        PATH=free_disk(tmp_path / 'bin', 2),
    )
    assert '6.3 GB are needed' in result.stderr


def test_setup_warns_when_the_cache_may_fill_the_disk(tmp_path):
    venv = tmp_path / 'venv'
    venv.mkdir()
    (venv / 'notes').touch()  # it stops there, and installs nothing
    said = {}
    for gigabytes in (8, 11):
        result = run(
            'bash',
            ROOT / 'tools/setup.sh',
            '--venv',
            venv,
            PATH=free_disk(tmp_path / f'bin{gigabytes}', gigabytes),
        )
        assert 'is no virtual environment' in result.stderr
        said[gigabytes] = 'PIP_NO_CACHE_DIR=1' in result.stdout
    assert said == {8: True, 11: False}


def test_setup_refuses_a_folder_that_is_something_else(tmp_path):
    notes = tmp_path / 'mine' / 'notes.txt'
    notes.parent.mkdir()
    notes.write_text('keep me')
    result = run(
        'bash',
        ROOT / 'tools/setup.sh',
        '--venv',
        notes.parent,
        PATH=free_disk(tmp_path / 'bin', 20),
    )
    assert result.returncode != 0
    assert 'is no virtual environment' in result.stderr
    assert notes.read_text() == 'keep me'


def test_setup_without_network_says_so(tmp_path):
    """pip is pointed at a closed port: nothing can be loaded."""
    result = run(
        'bash',
        ROOT / 'tools/setup.sh',
        '--venv',
        tmp_path / 'venv',
        PIP_INDEX_URL='http://127.0.0.1:9/simple',
        PIP_RETRIES='0',
        PIP_CONFIG_FILE='/dev/null',
        PIP_FIND_LINKS='',
        PIP_NO_CACHE_DIR='1',
        PATH=free_disk(tmp_path / 'bin', 20),
    )
    assert result.returncode != 0
    assert 'package index cannot be reached' in result.stderr
    assert 'goes on where it stopped' in result.stderr


def test_active_needs_an_environment(tmp_path):
    base = run(sys.executable, '-c', 'import sys; print(sys.base_prefix)')
    clean = {'PATH': f'{base.stdout.strip()}/bin:/usr/bin:/bin', 'VIRTUAL_ENV': ''}
    result = run(
        'env',
        '-u',
        'CONDA_PREFIX',
        'bash',
        ROOT / 'tools/setup.sh',
        '--active',
        **clean,
    )
    assert result.returncode != 0
    assert 'no virtual environment is active' in result.stderr


def test_lock_pins_exactly_and_once():
    """Per Python version one version of every distribution."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [
        line.split('#')[0].strip()
        for line in (ROOT / 'requirements/lock.txt').read_text().splitlines()
    ]
    pins = [Requirement(line) for line in lines if line]
    for version in ('3.10', '3.11', '3.12'):
        names = [
            canonicalize_name(pin.name)
            for pin in pins
            if pin.marker is None or pin.marker.evaluate({'python_version': version})
        ]
        assert len(set(names)) == len(names), version
        # The two write the same files.
        assert not {'opencv-python', 'opencv-python-headless'} <= set(names)
        locked = {
            canonicalize_name(pin.name): str(pin.specifier)[2:]
            for pin in pins
            if pin.marker is None or pin.marker.evaluate({'python_version': version})
        }
        for name in ('runtime', 'tests'):
            for line in (ROOT / f'requirements/{name}.txt').read_text().splitlines():
                if not line.split('#')[0].strip():
                    continue
                need = Requirement(line.split('#')[0])
                found = (
                    locked.get(canonicalize_name(need.name))
                    or locked[f'{need.name}-headless']
                )
                assert need.specifier.contains(found, prereleases=True), (
                    f'{need} is not met by the lock ({found})'
                )
    assert all(str(pin.specifier).startswith('==') for pin in pins)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['make_report.py', '--out', 'r.html', '--run', 'nonsense'],
            "takes GROUP/LABEL=DIR, got 'nonsense'",
        ),
        (
            ['make_report.py', '--out', 'r.html', '--run', 'a/b=absent'],
            'folder absent does not exist',
        ),
        (['run_table.py', 'absent.yaml'], 'absent.yaml does not exist'),
        (['run_table.py', 'absent.yaml', '--jobs', '0'], 'at least 1'),
    ],
)
def test_bad_input_ends_with_one_message(arguments, message, tmp_path):
    result = run(
        sys.executable, ROOT / 'tools' / arguments[0], *arguments[1:], cwd=tmp_path
    )
    assert result.returncode == 2
    assert message in result.stderr and 'Traceback' not in result.stderr
    assert not list(tmp_path.iterdir())
