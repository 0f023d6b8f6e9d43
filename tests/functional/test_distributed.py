import itertools

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from medssl_mm.functional import distributed
from tests.distributed import run_processes


def _batch():
    return torch.randn(8, 5, generator=torch.Generator().manual_seed(0))


def _model():
    torch.manual_seed(1)
    return torch.nn.Linear(5, 3)


def _covariance_loss(features, full_gradient=True):
    """The same on all ranks: uses a mean over the joint batch."""
    centred = features - distributed.mean_with_grad(features.mean(0), full_gradient)
    moment = centred.T @ centred / len(features)
    covariance = distributed.mean_with_grad(moment, full_gradient)
    return (covariance - torch.eye(3)).square().sum()


def _joint_loss(features):
    """The same on all ranks: uses the joint batch."""
    features = distributed.gather_with_grad(features)
    return torch.logsumexp(features @ features.T, 1).mean()


def _own_loss(features, full_gradient=True):
    """Of this rank's rows against the joint batch; its mean is the loss."""
    every = distributed.gather_with_grad(features, full_gradient)
    return torch.logsumexp(features @ every.T, 1).mean()


LOSSES = dict(covariance=_covariance_loss, joint=_joint_loss, own=_own_loss)


def _gradient(name, wrap, *options):
    model = _model()
    if wrap:
        model = DistributedDataParallel(model)
    rank, size = distributed.rank(), distributed.world_size()
    part = _batch().chunk(size)[rank]
    loss = LOSSES[name](model(part), *options)
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    return distributed.reduce_mean(loss), gradients


@pytest.mark.parametrize('name', LOSSES)
def test_two_processes_give_the_gradient_of_one(name):
    loss, gradients = _gradient(name, False)
    for other_loss, others in run_processes(_gradient, 2, name, True):
        torch.testing.assert_close(other_loss, loss.detach())
        torch.testing.assert_close(others, gradients)


def test_four_processes_give_the_gradient_of_one():
    _, gradients = _gradient('covariance', False)
    for _, others in run_processes(_gradient, 4, 'covariance', True):
        torch.testing.assert_close(others, gradients)


def _linear_in_features(full_gradient):
    """A loss on the mean only, where the lost factor is exact."""
    model = DistributedDataParallel(_model())
    part = _batch().chunk(distributed.world_size())[distributed.rank()]
    mean = distributed.mean_with_grad(model(part).mean(0), full_gradient)
    mean.square().sum().backward()
    return model.module.weight.grad


def test_own_gradient_only_loses_the_factor_world_size():
    full = run_processes(_linear_in_features, 2, True)[0]
    own = run_processes(_linear_in_features, 2, False)[0]
    torch.testing.assert_close(own * 2, full)


def _collectives():
    rank = distributed.rank()
    own = torch.arange(2.0) + 10 * rank
    torch.manual_seed(rank)
    return dict(
        gathered=distributed.gather(own),
        mean=distributed.reduce_mean(own),
        untouched=own,
        broadcast=distributed.broadcast(own, source=1),
        permutation=distributed.shared_permutation(6),
        drawn=torch.rand(1),
        objects=distributed.gather_objects({'rank': rank}),
        main=distributed.is_main_process(),
    )


@pytest.mark.exact
def test_plain_collectives_of_two_processes():
    first, second = run_processes(_collectives, 2)
    for result in (first, second):
        assert result['gathered'].tolist() == [0, 1, 10, 11]
        assert result['mean'].tolist() == [5, 6]
        assert result['broadcast'].tolist() == [10, 11]
        assert result['objects'] == [{'rank': 0}, {'rank': 1}]
        assert result['permutation'].sort().values.tolist() == list(range(6))
    assert first['untouched'].tolist() == [0, 1]
    torch.testing.assert_close(first['permutation'], second['permutation'])
    assert (first['main'], second['main']) == (True, False)


@pytest.mark.exact
def test_permutation_is_that_of_rank_zero_and_every_rank_draws():
    torch.manual_seed(0)
    expected, drawn = torch.randperm(6), torch.rand(1)
    results = run_processes(_collectives, 2)
    assert all(torch.equal(r['permutation'], expected) for r in results)
    torch.testing.assert_close(results[0]['drawn'], drawn)
    torch.manual_seed(1)
    torch.randperm(6)
    torch.testing.assert_close(results[1]['drawn'], torch.rand(1))


def _exchanged(orders, dtypes):
    for order, dtype in itertools.product(orders, dtypes):
        size = len(order) // distributed.world_size()
        torch.manual_seed(distributed.rank())
        own = torch.randn(size, 2, 3).to(dtype)
        kept = own.clone().requires_grad_(own.is_floating_point())
        dealt = distributed.exchange(kept, order)
        assert not dealt.requires_grad and dealt.dtype == dtype
        wanted = order.view(-1, size)[distributed.rank()]
        assert torch.equal(dealt, distributed.gather(own)[wanted]), dtype
        back = distributed.exchange(dealt, order.argsort())
        assert torch.equal(back, own), dtype


@pytest.mark.exact
@pytest.mark.parametrize('processes', [2, 3])
def test_exchange_deals_the_joint_batch_out(processes):
    torch.manual_seed(5)
    orders = (
        torch.randperm(4 * processes),
        torch.arange(4 * processes),  # everybody keeps the own rows
        torch.arange(4 * processes).roll(4),  # nobody keeps any
    )
    dtypes = (torch.float32, torch.bfloat16, torch.int64)
    run_processes(_exchanged, processes, orders, dtypes)


def test_exchange_within_one_process_permutes():
    rows = torch.arange(6.0).view(3, 2)
    order = torch.tensor([2, 0, 1])
    assert torch.equal(distributed.exchange(rows, order), rows[order])


def test_one_process_gets_its_input_back():
    x = torch.randn(3, 2, requires_grad=True)
    assert distributed.gather_with_grad(x) is x
    assert distributed.mean_with_grad(x) is x
    assert torch.equal(distributed.gather(x), x)
    assert not distributed.gather(x).requires_grad
    assert distributed.broadcast(x) is x
    assert distributed.gather_objects('a') == ['a']
    assert (distributed.world_size(), distributed.rank()) == (1, 0)


def _fail_on_rank_one():
    if distributed.rank() == 1:
        raise ValueError('queue is full')


@pytest.mark.exact
def test_helper_raises_what_a_rank_raised():
    with pytest.raises(ValueError, match='queue is full') as caught:
        run_processes(_fail_on_rank_one, 2)
    assert 'on rank 1' in str(caught.value.__cause__)
