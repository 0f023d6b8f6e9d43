import importlib.util
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from medssl_mm import compat
from medssl_mm.errors import InstallError, UserError

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
from medssl_mm import compat
print({name: str(found) for name, found in compat._required_ranges().items()})
"""


@pytest.mark.parametrize('kind', ['source tree', 'installed', 'neither'])
def test_ranges_have_one_source(kind, tmp_path):
    """requirements/runtime.txt in a source tree, else the metadata."""
    package = tmp_path / 'medssl_mm'
    package.mkdir()
    for name in ('__init__.py', 'version.py', 'errors.py', 'compat.py'):
        shutil.copy(Path(compat.__file__).with_name(name), package)
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


HOSTS = """
from medssl_mm import compat
compat.apply(); compat.apply()
import mmcv
true = mmcv.__version__
from mmengine.registry import HOOKS, LOOPS, MODELS
print(MODELS.get('mmselfsup.MoCo').__name__)
with LOOPS.switch_scope_and_registry('mmselfsup') as registry:
    print(registry.scope, registry.get('EpochBasedTrainLoop').__name__)
print(mmcv.__version__ == true)
import mmengine.config.utils as utils
print(utils.MODULE2PACKAGE['mmseg'])
"""


@pytest.mark.slow
def test_mmselfsup_works_and_mmcv_keeps_its_version():
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', HOSTS],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split('\n')[:4] == [
        'MoCo',
        'mmselfsup EpochBasedTrainLoop',
        'True',
        'mmseg',
    ], done.stderr


BROKEN = """
import sys
from medssl_mm import compat
compat.apply()
sys.modules['mmcls.apis'] = None  # as if a file were missing
import mmcv
true = mmcv.__version__
from mmengine.registry import MODELS
try:
    MODELS.get('mmselfsup.MoCo')
except compat.InstallError as error:
    print(error)
print(mmcv.__version__ == true)
"""


def test_a_failing_import_is_loud_and_restores_the_version():
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', BROKEN],
        capture_output=True,
        text=True,
    )
    message, restored = done.stdout.strip().split('\n')
    assert '"import mmcls" failed' in message, done.stderr
    assert restored == 'True'


def test_config_base_of_mmseg_is_found(tmp_path):
    from mmengine.config import Config

    compat.apply()
    path = tmp_path / 'config.py'
    path.write_text("_base_ = ['mmseg::_base_/schedules/schedule_20k.py']\nnew = 1\n")
    assert Config.fromfile(path).train_cfg.max_iters == 20000


class Trap:
    def __reduce__(self):
        return (eval, ('pytest.fail("code from a checkpoint ran")',))


@pytest.mark.parametrize('door', ['ours', 'mmengine'])
def test_checkpoint_with_code_is_refused_with_a_way_out(tmp_path, door):
    from mmengine.runner.checkpoint import CheckpointLoader

    compat.apply()
    path = tmp_path / 'third_party.pth'
    torch.save({'state_dict': {}, 'config': Trap()}, path)
    load = compat.load_checkpoint
    if door == 'mmengine':
        load = CheckpointLoader.load_checkpoint
    with pytest.raises(UserError, match=r'third_party\.pth: .*eval.*OLD'):
        load(str(path))


def test_checkpoint_of_upstream_with_history_and_numpy_is_read(tmp_path):
    path = tmp_path / 'upstream.pth'
    buffer = HistoryBuffer([1.0, 3.0], [1, 1])
    checkpoint = dict(
        state_dict={'weight': torch.ones(2)},
        message_hub=dict(log_scalars={'train/loss': buffer}),
        meta=dict(best=np.float64(0.5), palette=np.arange(3)),
    )
    torch.save(checkpoint, path)
    loaded = compat.load_checkpoint(path)
    history = loaded['message_hub']['log_scalars']['train/loss']
    assert history.mean() == 2
    assert loaded['meta']['palette'].tolist() == [0, 1, 2]


class Wolf:
    def __reduce__(self):
        return (getattr, (HistoryBuffer, '__init__'))


def test_pickled_getattr_reaches_history_methods_only(tmp_path):
    torch.save({'a': Wolf()}, tmp_path / 'wolf.pth')
    with pytest.raises((UserError, pickle.UnpicklingError)):
        compat.load_checkpoint(tmp_path / 'wolf.pth')


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 cut', b'hello'])
def test_damaged_checkpoint_is_named(tmp_path, content):
    path = tmp_path / 'short.pth'
    path.write_bytes(content)
    with pytest.raises(UserError, match=r'short\.pth'):
        compat.load_checkpoint(path)


def test_launchers_say_what_starts_them(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r'RANK.*tools/dist_train\.sh'):
        compat.init_process_group('pytorch')
    with pytest.raises(UserError, match=r'srun.*tools/slurm_train\.sh'):
        compat.init_process_group('slurm')
    with pytest.raises(UserError, match='pytorch or slurm'):
        compat.init_process_group('mpi')
