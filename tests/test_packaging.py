"""What a wheel carries."""

import email
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[1]


def setup(folder, *arguments):
    result = subprocess.run(
        [sys.executable, 'setup.py', '-q', *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Files of a wheel built from a source distribution of a copy of the tree."""
    source = tmp_path_factory.mktemp('source')
    ignore = shutil.ignore_patterns('__pycache__', '.mim')
    for name in ('medssl_mm', 'configs', 'tools', 'requirements'):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in (
        'setup.py',
        'pyproject.toml',
        'requirements.txt',
        'MANIFEST.in',
        'LICENSE',
        'README.md',
        'CHANGELOG.md',
        'model-index.yml',
    ):
        shutil.copy(ROOT / name, source)
    out = source / 'out'
    setup(source, 'sdist', '-d', out)
    (path,) = out.glob('*.tar.gz')
    shutil.unpack_archive(path, out)
    (unpacked,) = (entry for entry in out.iterdir() if entry.is_dir())
    setup(unpacked, 'bdist_wheel', '-d', out)
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
def test_wheel_carries_the_templates(wheel):
    folder = 'medssl_mm/results/templates'
    templates = list((ROOT / folder).iterdir())
    assert templates
    for path in templates:
        assert wheel[f'{folder}/{path.name}'] == path.read_bytes()


@pytest.mark.slow
def test_wheel_says_that_it_carries_types(wheel):
    assert 'medssl_mm/py.typed' in wheel


@pytest.mark.slow
def test_wheel_brings_the_command(wheel):
    (text,) = (c for name, c in wheel.items() if name.endswith('entry_points.txt'))
    assert 'medssl = medssl_mm.cli:main' in text.decode()


@pytest.mark.slow
def test_metadata(wheel):
    from medssl_mm import __version__

    metadata = next(
        content.decode()
        for name, content in wheel.items()
        if name.endswith('dist-info/METADATA')
    )
    assert f'\nVersion: {__version__}\n' in metadata
    assert 'Requires-Python: <3.15,>=3.10' in metadata or (
        'Requires-Python: >=3.10,<3.15' in metadata
    )
    assert 'Requires-Dist: torch' in metadata
    assert '\n# medssl_mm\n' in metadata  # README.md describes the package
    assert any(
        name.endswith('LICENSE') and b'Apache License' in content
        for name, content in wheel.items()
    )


@pytest.mark.slow
def test_metadata_has_every_range(wheel):
    """requirements/*.txt is the statement; the metadata repeats it."""
    content = next(
        content.decode()
        for name, content in wheel.items()
        if name.endswith('dist-info/METADATA')
    )
    declared = {'': set()}
    for line in email.message_from_string(content).get_all('Requires-Dist'):
        need = Requirement(line)
        extra = re.search(r'extra == .(\w+)', str(need.marker))
        declared.setdefault(extra[1] if extra else '', set()).add(
            (need.name, need.specifier)
        )
    stated = {}
    for path in (ROOT / 'requirements').glob('*.txt'):
        if path.name in ('lock.txt', 'overrides.txt'):
            continue
        lines = [line.split('#')[0].strip() for line in path.read_text().splitlines()]
        needs = [Requirement(line) for line in lines if line]
        stated[path.stem] = {(need.name, need.specifier) for need in needs}
    stated[''] = stated.pop('runtime')
    everything = declared.pop('all')
    assert declared == stated
    assert everything == set().union(*stated.values()) - stated['']


def test_container_is_made_from_what_is_there():
    text = (ROOT / 'Dockerfile').read_text()
    copied = re.findall(r'^COPY (.+) \S+$', text, re.M)
    for name in ' '.join(copied).split():
        assert (ROOT / name).exists(), name
    # Set up before the sources come, by the same command.
    assert text.count('RUN bash tools/setup.sh') == 2
    needed = set(re.findall(r'[\w.-]+', copied[0])) | set(copied[1:-1])
    assert needed >= {'pyproject.toml', 'setup.py', 'requirements', 'medssl_mm'}


def test_citation_is_of_this_licence_and_names_the_papers():
    content = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))
    assert content['license'] == 'Apache-2.0'
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    cited = [paper.get('doi') or paper['url'] for paper in content['references']]
    assert len(cited) == 4
    assert all(paper['authors'] and paper['year'] for paper in content['references'])
    for name in ('2402.14611', '2110.14805', 'jimaging8120320'):
        assert name in readme and any(name in paper for paper in cited)
