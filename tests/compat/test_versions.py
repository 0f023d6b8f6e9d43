import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medssl_mm import compat
from medssl_mm.errors import InstallError

GOOD = {
    'torch': '2.14.1',
    'torchvision': '0.29.1',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmsegmentation': '1.4.2',
    'onedl-mmpretrain': '1.3.6',
    'mmselfsup': '1.0.0',
    'mmcls': '1.0.0rc6',
}


def _check(**changes):
    versions = {**GOOD, **{k.replace('_', '-'): v for k, v in changes.items()}}
    compat.check_install(versions.get)


def test_the_pinned_set_passes():
    _check()


@pytest.mark.parametrize(
    ('torch_version', 'torchvision_version'),
    [('2.6.0', '0.21.0'), ('2.11.0+cu128', '0.26.0+cu128')],
)
def test_matched_pairs_pass(torch_version, torchvision_version):
    _check(torch=torch_version, torchvision=torchvision_version)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            dict(mmselfsup=None),
            r'mmselfsup is not installed; run: pip install "mmselfsup>=1\.0',
        ),
        (
            dict(mmengine='0.10.7'),
            r'onedl-mmengine 0\.10\.12 and mmengine 0\.10\.7 are both '
            r'installed.*pip uninstall -y mmengine onedl-mmengine',
        ),
        (
            {'onedl-mmsegmentation': None, 'mmsegmentation': '1.2.2'},
            r'"mmseg" comes from mmsegmentation 1\.2\.2.*pip uninstall -y '
            r'mmsegmentation && pip install "onedl-mmsegmentation',
        ),
        (
            dict(torchvision='0.28.0'),
            r'not a matched pair; run: pip install "torch==2\.14\.1" '
            r'"torchvision==0\.29\.\*"',
        ),
        (
            dict(torch='2.14.1+cpu', torchvision='0.29.1+cu130'),
            'not a matched pair',
        ),
        (
            dict(torch='2.5.1', torchvision='0.20.1'),
            r'torch 2\.5\.1 is installed, torch>=2\.6',
        ),
    ],
)
def test_wrong_installations_are_named_with_a_remedy(changes, message):
    with pytest.raises(InstallError, match=message):
        _check(**changes)


def test_all_problems_are_listed_at_once():
    with pytest.raises(InstallError, match=r'(?s)mmselfsup is.*mmcls is') as e:
        _check(mmcls=None, mmselfsup=None)
    assert str(e.value).count('\n  - ') == 2


INSTALLED = """
from medssl_mm.compat import versions
print({name: str(found) for name, found in versions._required_ranges().items()})
"""


@pytest.mark.parametrize('kind', ['source tree', 'installed', 'neither'])
def test_ranges_have_one_source(kind, tmp_path):
    """requirements/runtime.txt in a source tree, else the metadata."""
    source, package = Path(compat.__file__).parent, tmp_path / 'medssl_mm'
    shutil.copytree(source, package / 'compat')
    for name in ('__init__.py', 'version.py', 'errors.py'):
        shutil.copy(source.with_name(name), package)
    if kind == 'source tree':
        (tmp_path / 'pyproject.toml').touch()
        (tmp_path / 'requirements').mkdir()
        (tmp_path / 'requirements/runtime.txt').write_text(
            '# hosts\ntorch>=2.6  # comment\n\nnumpy\n'
        )
    elif kind == 'installed':
        metadata = tmp_path / 'medssl_mm-0.dist-info' / 'METADATA'
        metadata.parent.mkdir()
        metadata.write_text(
            'Metadata-Version: 2.1\nName: medssl_mm\nVersion: 0\n'
            'Requires-Dist: torch>=2.6\nRequires-Dist: numpy\n'
            'Provides-Extra: tests\nRequires-Dist: pytest>=8; extra == "tests"\n'
        )
    # -I -S: nothing but this folder is seen; packaging comes along.
    packaging = Path(importlib.util.find_spec('packaging').origin).parent
    shutil.copytree(packaging, tmp_path / 'packaging')
    code = f'import sys; sys.path.insert(0, {str(tmp_path)!r})\n{INSTALLED}'
    done = subprocess.run(
        [sys.executable, '-I', '-S', '-c', code], capture_output=True, text=True
    )
    if kind == 'neither':
        assert 'without its metadata and without requirements' in done.stderr
    else:
        assert done.stdout == "{'torch': '>=2.6', 'numpy': ''}\n", done.stderr
