import subprocess
import sys

import pytest
from mmengine.config import Config

from medssl_mm import compat

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
    compat.apply()
    path = tmp_path / 'config.py'
    path.write_text("_base_ = ['mmseg::_base_/schedules/schedule_20k.py']\nnew = 1\n")
    assert Config.fromfile(path).train_cfg.max_iters == 20000
