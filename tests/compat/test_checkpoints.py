import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader

from medssl_mm import compat
from medssl_mm.errors import UserError


class Trap:
    def __reduce__(self):
        return (eval, ('pytest.fail("code from a checkpoint ran")',))


@pytest.mark.parametrize('door', ['ours', 'mmengine'])
def test_checkpoint_with_code_is_refused_with_a_way_out(tmp_path, door):
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
