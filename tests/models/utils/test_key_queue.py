import pytest
import torch
from torch import nn

from medssl_mm.functional.distributed import rank
from medssl_mm.models.utils import KeyQueue, hoist_state
from tests.distributed import run_processes


def test_starts_with_directions():
    queue = KeyQueue(16, feat_dim=8)
    assert queue.rows.shape == (16, 8)
    torch.testing.assert_close(queue.rows.norm(dim=1), torch.ones(16))


def test_oldest_keys_leave_first():
    queue = KeyQueue(6, feat_dim=2)
    batches = [torch.full((2, 2), float(n)) for n in range(5)]
    for keys in batches:
        queue.enqueue(keys)
    found = queue.rows[:, 0].tolist()
    assert found == [3.0, 3.0, 4.0, 4.0, 2.0, 2.0]
    assert queue.queue_ptr.tolist() == [4]


def test_keys_enter_as_numbers():
    """Later changes of the keys, or their graph, do not reach the queue."""
    queue = KeyQueue(4, feat_dim=2)
    keys = torch.ones(2, 2, requires_grad=True)
    queue.enqueue(keys * 1)
    assert not queue.queue.requires_grad
    with torch.no_grad():
        keys.zero_()
    assert queue.rows[:2].eq(1).all()


def enqueue_on_every_rank():
    torch.manual_seed(0)
    queue = KeyQueue(8, feat_dim=2)
    for step in range(3):
        queue.enqueue(torch.full((2, 2), 10.0 * step + rank()))
    return queue.rows[:, 0]


@pytest.mark.exact
def test_two_processes_hold_the_keys_of_both():
    expected = torch.tensor([20.0, 20.0, 21.0, 21.0, 10.0, 10.0, 11.0, 11.0])
    for found in run_processes(enqueue_on_every_rank, 2):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    'queue_len, batch, near',
    [
        (100, 48, '96 or 144'),
        (30, 64, 'queue_len=64'),
    ],
)
def test_batch_that_does_not_divide(queue_len, batch, near):
    queue = KeyQueue(queue_len, feat_dim=2)
    message = f'queue_len={queue_len} .* batch size {batch}; .*{near}'
    with pytest.raises(ValueError, match=message):
        queue.check_batch(batch)
    with pytest.raises(ValueError, match=message):
        queue.enqueue(torch.ones(batch, 2))
    queue.check_batch(queue_len)


def test_wrong_sizes():
    with pytest.raises(ValueError, match='got queue_len=0, feat_dim=8'):
        KeyQueue(0, 8)


class Owner(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.keys = KeyQueue(4, 2)
        hoist_state(self, 'keys')


def test_hoisted_names_survive_nesting():
    saved, loaded = nn.ModuleList([Owner()]), nn.ModuleList([Owner()])
    saved[0].keys.enqueue(torch.ones(2, 2))
    state = saved.state_dict()
    assert set(state) == {'0.layer.weight', '0.layer.bias', '0.queue', '0.queue_ptr'}
    loaded.load_state_dict(state)  # strict
    torch.testing.assert_close(loaded[0].keys.rows, saved[0].keys.rows)
    assert loaded[0].keys.queue_ptr.tolist() == [2]
    with pytest.raises(RuntimeError, match='queue_ptr'):
        loaded.load_state_dict(
            {name: value for name, value in state.items() if 'ptr' not in name}
        )
