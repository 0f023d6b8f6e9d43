import random
from collections import OrderedDict, deque
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from medssl_mm.engine import checkpoints
from medssl_mm.errors import UserError


def test_plain_nest_loads_with_weights_only(tmp_path):
    nest = OrderedDict(
        number=np.float32(0.5),
        flag=np.bool_(True),
        array=np.arange(3),
        queue=deque([1, 2]),
        path=Path('a/b'),
        history=HistoryBuffer([1.0, 2.0], [1, 1]),
        weight=torch.nn.Parameter(torch.ones(2)),
        pair=(1, 'x'),
    )
    torch.save(checkpoints.to_plain(nest), tmp_path / 'a.pth')
    loaded = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert type(loaded) is dict
    assert (loaded['number'], loaded['flag']) == (0.5, True)
    assert loaded['array'].tolist() == [0, 1, 2]
    assert loaded['queue'] == [1, 2]
    assert loaded['path'] == 'a/b'
    assert loaded['history']['log_history'].tolist() == [1, 2]
    assert loaded['pair'] == (1, 'x')


def test_what_cannot_be_stored_is_located():
    with pytest.raises(TypeError, match=r"checkpoint\['a'\]\[1\] is a .*lock"):
        import threading

        checkpoints.to_plain({'a': [1, threading.Lock()]})


def test_log_information_that_cannot_be_stored_is_left_out():
    info = dict(good=1, bad=object())
    checkpoint = dict(message_hub=dict(log_scalars={}, runtime_info=info))
    assert checkpoints.plain_checkpoint(checkpoint) == ['bad']
    assert checkpoint['message_hub']['runtime_info'] == dict(good=1)


def test_history_survives_the_round_trip():
    history = HistoryBuffer([1.0, 2.0, 4.0], [1, 1, 1])
    checkpoint = dict(message_hub=dict(log_scalars={'train/loss': history}))
    checkpoints.plain_checkpoint(checkpoint)
    checkpoints.restore_history(checkpoint)
    restored = checkpoint['message_hub']['log_scalars']['train/loss']
    restored.update(8.0)
    assert restored.mean(2) == 6
    assert restored.data[0].tolist() == [1, 2, 4, 8]


def _draw():
    return random.gauss(0, 1), np.random.randn(), torch.rand(2).tolist()


def test_random_state_returns_to_where_it_was(tmp_path):
    random.gauss(0, 1), np.random.randn()  # leaves a second value waiting
    torch.save(checkpoints.random_state(), tmp_path / 'state.pth')
    expected = _draw()
    _draw()
    state = torch.load(tmp_path / 'state.pth', weights_only=True)
    checkpoints.set_random_state(state)
    assert _draw() == expected


def _save(path):
    torch.save(dict(weight=torch.arange(1000.0)), path)
    return path


def test_damage_is_found_wherever_it_is(tmp_path):
    path = _save(tmp_path / 'a.pth')
    assert checkpoints.damage_of(path) is None
    content = path.read_bytes()
    assert checkpoints.damage_of(tmp_path / 'b.pth') == 'is not there'
    path.write_bytes(content[: len(content) // 2])
    assert 'truncated' in checkpoints.damage_of(path)
    middle = content.index(torch.tensor(500.0).numpy().tobytes())
    path.write_bytes(content[:middle] + b'\x00' + content[middle + 1 :])
    path.write_bytes(content[:middle] + b'\xff\xff\xff\xff' + content[middle + 4 :])
    assert 'checksum' in checkpoints.damage_of(path)


def test_flipped_bits_anywhere_never_pass_for_another_checkpoint(tmp_path):
    path = _save(tmp_path / 'a.pth')
    content = bytearray(path.read_bytes())
    start = content.index(b'PK\x01\x02')  # directory: no checksum covers it
    damaged = 0
    for place in range(start, len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        if checkpoints.damage_of(path):
            damaged += 1
        else:  # a date, or an attribute of the file
            loaded = torch.load(path, weights_only=True)
            assert torch.equal(loaded['weight'], torch.arange(1000.0))
    assert damaged > 100


def test_what_is_no_mapping_is_no_checkpoint(tmp_path):
    torch.save([torch.ones(2)], tmp_path / 'iter_2.pth')
    assert 'but a list' in checkpoints.damage_of(tmp_path / 'iter_2.pth')
    _save(tmp_path / 'iter_1.pth')
    assert checkpoints.find_intact(tmp_path, print) == str(tmp_path / 'iter_1.pth')


def test_ruined_weights_are_counted_and_named():
    good = dict(weight=torch.ones(3), steps=torch.tensor(2), note='x')
    checkpoints.require_finite(good, 'a.pth')
    for value in ('nan', 'inf', '-inf'):
        bad = dict(good, scale=torch.tensor([1.0, float(value)]))
        with pytest.raises(UserError, match=r'a\.pth holds 1 .* scale \(1 of 2 values'):
            checkpoints.require_finite(bad, 'a.pth')
    mask = dict(mask=torch.full((2,), -torch.inf))  # as the network has it itself
    checkpoints.require_finite(mask, 'a.pth', mask)
    with pytest.raises(UserError, match='mask'):
        checkpoints.require_finite(mask, 'a.pth', dict(mask=torch.zeros(2)))


def test_order_follows_the_pointer_not_left_overs(tmp_path):
    for step in (1, 2, 3, 50):
        _save(tmp_path / f'epoch_{step}.pth')
    _save(tmp_path / 'best_dice_epoch_60.pth')
    (tmp_path / 'last_checkpoint').write_text('/moved/epoch_3.pth')
    names = [p.stem for p in checkpoints.resume_candidates(tmp_path)]
    assert names == ['epoch_3', 'epoch_2', 'epoch_1', 'epoch_50']
    (tmp_path / 'last_checkpoint').unlink()
    names = [p.stem for p in checkpoints.resume_candidates(tmp_path)]
    assert names == ['epoch_50', 'epoch_3', 'epoch_2', 'epoch_1']


def test_intact_checkpoint_is_found_with_a_warning(tmp_path):
    _save(tmp_path / 'iter_10.pth')
    (tmp_path / 'iter_20.pth').write_bytes(b'PK')
    said = []
    found = checkpoints.find_intact(tmp_path, said.append)
    assert Path(found).name == 'iter_10.pth'
    assert len(said) == 1
    assert 'iter_20.pth is truncated' in said[0]
    (tmp_path / 'iter_10.pth').write_bytes(b'')
    with pytest.raises(UserError, match=r'iter_20\.pth.*iter_10\.pth'):
        checkpoints.find_intact(tmp_path, said.append)


def test_folder_without_checkpoints_gives_none(tmp_path):
    assert checkpoints.find_intact(tmp_path, print) is None


def test_checkpoint_of_ruined_weights_is_skipped(tmp_path):
    good, ruined = torch.ones(2), torch.tensor([1.0, torch.nan])
    torch.save(dict(state_dict=dict(weight=good)), tmp_path / 'iter_1.pth')
    torch.save(dict(state_dict=dict(weight=ruined)), tmp_path / 'iter_2.pth')
    said = []
    found = checkpoints.find_intact(tmp_path, said.append)
    assert Path(found).name == 'iter_1.pth'
    assert 'iter_2.pth holds 1 weights' in said[0] and '(1 of 2 values)' in said[0]
    network = dict(weight=torch.full((2,), torch.inf))  # has it so itself
    found = checkpoints.find_intact(tmp_path, said.append, network)
    assert Path(found).name == 'iter_2.pth'
    (tmp_path / 'iter_1.pth').unlink()
    with pytest.raises(UserError, match=r'no checkpoint .*iter_2\.pth holds 1 weights'):
        checkpoints.find_intact(tmp_path, said.append)
