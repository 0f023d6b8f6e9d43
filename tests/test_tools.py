"""Every tool explains itself, quickly, and ends well on bad input."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import tools
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[1]
PYTHON_TOOLS = sorted(
    path
    for path in (ROOT / 'tools').rglob('*.py')
    if "__name__ == '__main__'" in path.read_text()
)
SHELL_TOOLS = sorted((ROOT / 'tools').glob('*.sh'))
COMMANDS = [
    *('setup.sh', 'test.sh', 'demo.sh', 'lock.sh'),
    *('test_pythons.sh', 'test_processors.sh'),
]
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
        timeout=PATIENCE,
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
    result = tools.run(path, '--no-such-option', folder=tmp_path)
    assert result.returncode == 2
    assert 'Traceback' not in result.stderr


@pytest.mark.parametrize('path', SHELL_TOOLS, ids=ids(SHELL_TOOLS))
def test_shell_syntax(path):
    result = run('bash', '-n', path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize('name', COMMANDS)
def test_commands_explain_themselves(name, tmp_path):
    result = run('bash', ROOT / 'tools' / name, '--help', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f'bash tools/{name} [' in result.stdout


@pytest.mark.parametrize('name', ['dist_train.sh', 'dist_test.sh'])
def test_launchers_say_how_to_call_them(name):
    result = run('bash', ROOT / 'tools' / name)
    assert result.returncode != 0 and 'usage:' in result.stderr


def test_setup_without_python_says_what_to_install(tmp_path):
    needed = 'bash basename cat dirname flock ls mkdir mktemp realpath rm sed sha256sum'
    for name in needed.split():
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
    assert 'no Python 3.10 to 3.14 found' in result.stderr
    assert 'apt install' in result.stderr
    assert not (tmp_path / 'venv').exists()


def python_shim(folder):
    """Make a version manager's name for a version that is not installed."""
    shim = folder / 'python3.12'
    shim.write_text('#!/bin/sh\necho not installed >&2\nexit 127\n')
    shim.chmod(0o755)
    return shim


def test_setup_skips_a_python_that_does_not_run(tmp_path):
    python_shim(tmp_path)
    result = run(
        'bash',
        '-c',
        f'source {ROOT}/tools/setup.sh && medssl_find_python',
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
        MEDSSL_PYTHON='',
    )
    assert result.returncode == 0
    assert str(tmp_path) not in result.stdout and result.stdout.strip()


def test_setup_refuses_a_named_python_that_does_not_run(tmp_path):
    """Another one than the one asked for would be a surprise."""
    shim = python_shim(tmp_path)
    result = run(
        'bash',
        ROOT / 'tools/setup.sh',
        '--venv',
        tmp_path / 'venv',
        MEDSSL_PYTHON=str(shim),
    )
    assert result.returncode != 0
    assert f'no Python 3.10 to 3.14 found (tried {shim})' in result.stderr


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
    assert 'only 2 GB are free' in result.stderr
    assert '8 GB are needed' in result.stderr


NO_NETWORK = dict(
    PIP_INDEX_URL='http://127.0.0.1:9/simple',
    PIP_RETRIES='0',
    PIP_CONFIG_FILE='/dev/null',
    PIP_FIND_LINKS='',
    PIP_NO_CACHE_DIR='1',
    UV_NO_CACHE='1',
    UV_HTTP_RETRIES='0',
    UV_DEFAULT_INDEX='',
    UV_INDEX_URL='',
)


def test_setup_goes_on_with_what_is_loaded(tmp_path):
    """An interrupted installation already holds part of the needed space."""
    venv = tmp_path / 'venv'
    path = free_disk(tmp_path / 'bin', 20)
    command = ['bash', ROOT / 'tools/setup.sh', '--venv', venv]
    first = run(*command, PATH=path, **NO_NETWORK)
    assert 'package index cannot be reached' in first.stderr
    (venv / 'half-linked').touch()
    second = run(*command, PATH=free_disk(tmp_path / 'bin2', 2), **NO_NETWORK)
    assert 'are needed' not in second.stderr
    assert 'package index cannot be reached' in second.stderr
    assert not (venv / 'half-linked').exists()


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


def test_setup_keeps_an_environment_that_it_did_not_make(tmp_path):
    venv = tmp_path / 'venv'
    run(sys.executable, '-m', 'venv', '--without-pip', venv)
    (venv / 'mine').write_text('keep me')
    result = run('bash', ROOT / 'tools/setup.sh', '--venv', venv, **NO_NETWORK)
    assert result.returncode != 0
    assert (venv / 'mine').read_text() == 'keep me'
    assert not (venv / 'medssl-setup.stamp').exists()


@pytest.mark.parametrize('loader', ['uv', 'pip'])
def test_setup_without_network_says_so(tmp_path, loader):
    """The index is a closed port: nothing can be loaded, by either tool."""
    path = free_disk(tmp_path / 'bin', 20)
    if loader == 'pip':
        fake = tmp_path / 'bin' / 'uv'
        fake.write_text('#!/bin/sh\necho uv 0.1.0\n')  # too old
    else:
        uv = Path(sys.executable).with_name('uv')
        if not uv.exists():
            pytest.skip('uv is not installed')
        fake = tmp_path / 'bin' / 'uv'
        fake.write_text(f'#!/bin/sh\nexec {uv} "$@"\n')
    fake.chmod(0o755)
    result = run(
        'bash',
        ROOT / 'tools/setup.sh',
        '--venv',
        tmp_path / 'venv',
        PATH=path,
        **NO_NETWORK,
    )
    assert result.returncode != 0
    assert 'package index cannot be reached' in result.stderr
    assert 'the same command goes on' in result.stderr


def test_setups_wait_for_each_other(tmp_path):
    (tmp_path / 'tools').mkdir()
    shutil.copy(ROOT / 'tools/setup.sh', tmp_path / 'tools')
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with subprocess.Popen(
        ['bash', tmp_path / 'tools/setup.sh', '--venv', tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        assert 'waiting for another set-up' in waiting.stdout.readline()
        os.close(folder)
        assert 'is no virtual environment' in waiting.communicate(timeout=PATIENCE)[1]


def test_pythons_names_those_it_does_not_find():
    result = run('bash', ROOT / 'tools/test_pythons.sh', '3.9', '/nowhere/python')
    assert result.returncode == 1
    assert result.stdout.splitlines() == [
        '3.9: not found, or not one of 3.10 to 3.14',
        '/nowhere/python: not found, or not one of 3.10 to 3.14',
    ]


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


def lock_of(version, machine):
    """Return name and version of every distribution of the lock, and its hashes."""
    environment = {
        **default_environment(),
        'python_version': version,
        'python_full_version': f'{version}.2',
        'platform_machine': machine,
        'sys_platform': 'linux',
    }
    pins = []
    text = (ROOT / 'requirements/lock.txt').read_text().replace('\\\n', '')
    for line in text.splitlines():
        pin, *hashes = line.split('#')[0].strip().split(' --hash=')
        if pin and (
            (need := Requirement(pin)).marker is None
            or need.marker.evaluate(environment)
        ):
            (bound,) = need.specifier
            assert bound.operator == '==', pin
            pins.append((canonicalize_name(need.name), bound.version, hashes))
    return pins


@pytest.mark.parametrize('machine', ['x86_64', 'aarch64'])
@pytest.mark.parametrize('version', ['3.10', '3.11', '3.12', '3.13', '3.14'])
def test_lock_pins_exactly_and_once(version, machine):
    """Per Python version one version of every distribution, with its hashes."""
    pins = lock_of(version, machine)
    locked = {name: found for name, found, _ in pins}
    assert len(locked) == len(pins)
    assert all(hashes for _, _, hashes in pins)
    # The two write the same files.
    assert 'opencv-python' not in locked
    locked['opencv-python'] = locked['opencv-python-headless']
    for name in ('runtime', 'tests', 'readers', 'models', 'saliency'):
        for line in (ROOT / f'requirements/{name}.txt').read_text().splitlines():
            if not (line := line.split('#')[0].strip()):
                continue
            need = Requirement(line)
            found = locked[canonicalize_name(need.name)]
            assert need.specifier.contains(found, prereleases=True), (
                f'{need} is not met by the lock ({found})'
            )


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
    result = tools.run(*arguments, folder=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr and 'Traceback' not in result.stderr
    assert not list(tmp_path.iterdir())
