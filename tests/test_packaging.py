"""What a wheel carries."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Files of a wheel built from a copy of the tree."""
    source = tmp_path_factory.mktemp('source')
    ignore = shutil.ignore_patterns('__pycache__', '.mim')
    for name in ('medssl_mm', 'configs', 'tools', 'requirements'):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in (
        'setup.py',
        'setup.cfg',
        'MANIFEST.in',
        'LICENSE',
        'CHANGELOG.md',
        'model-index.yml',
    ):
        shutil.copy(ROOT / name, source)
    out = source / 'out'
    result = subprocess.run(
        [sys.executable, 'setup.py', '-q', 'bdist_wheel', '-d', str(out)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    (path,) = out.glob('*.whl')
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.slow
def test_wheel_carries_the_mim_folder(wheel):
    for folder in ('configs', 'tools'):
        for path in (ROOT / folder).rglob('*'):
            if path.is_file() and '__pycache__' not in path.parts:
                name = f'medssl_mm/.mim/{path.relative_to(ROOT)}'
                assert wheel[name] == path.read_bytes(), name
    assert 'medssl_mm/.mim/model-index.yml' in wheel


@pytest.mark.slow
def test_wheel_carries_every_module_and_nothing_else(wheel):
    expected = {
        str(path.relative_to(ROOT))
        for path in (ROOT / 'medssl_mm').rglob('*.py')
        if '.mim' not in path.parts
    }
    found = {name for name in wheel if name.endswith('.py') and '/.mim/' not in name}
    assert found == expected


@pytest.mark.slow
def test_metadata(wheel):
    from medssl_mm import __version__

    metadata = next(
        content.decode()
        for name, content in wheel.items()
        if name.endswith('dist-info/METADATA')
    )
    assert f'\nVersion: {__version__}\n' in metadata
    assert 'Requires-Python: <3.13,>=3.10' in metadata or (
        'Requires-Python: >=3.10,<3.13' in metadata
    )
    assert 'Requires-Dist: torch>=' in metadata
    assert any(
        name.endswith('LICENSE') and b'Apache License' in content
        for name, content in wheel.items()
    )
