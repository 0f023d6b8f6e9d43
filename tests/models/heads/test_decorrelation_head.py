import copy

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from medssl_mm.functional.distributed import rank, world_size
from medssl_mm.models.heads import (
    DecorrelationConv,
    DecorrelationHead,
)
from medssl_mm.registry import MODELS
from tests.distributed import run_processes


def maps(count=8, channels=8, side=6, seed=0, dtype=torch.float32):
    """Correlated, shifted, of different scales."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, channels, side, side, generator=generator, dtype=dtype)
    mixing = torch.randn(
        channels, channels, generator=torch.Generator().manual_seed(99), dtype=dtype
    )
    return torch.einsum('ij,njhw->nihw', mixing, x) + 3


def covariance(x):
    rows = x.permute(0, 2, 3, 1).flatten(0, 2)
    rows = rows - rows.mean(0)
    return rows.T @ rows / len(rows)


def close(found, expected, **tolerance):
    torch.testing.assert_close(
        found, expected, **(tolerance or dict(rtol=1e-4, atol=1e-4))
    )


@pytest.mark.parametrize('method', ['zca', 'newton_schulz', 'cholesky'])
@pytest.mark.parametrize('seed', [None, 5])
def test_training_output_is_white_in_each_group(method, seed):
    head = DecorrelationHead(
        8, num_groups=2, method=method, eps=1e-6, shuffle_seed=seed
    )
    y = head(maps())
    order = torch.arange(8) if seed is None else head.channel_order
    found = covariance(y)[order][:, order]
    for group in (slice(0, 4), slice(4, 8)):
        close(found[group, group], torch.eye(4), rtol=0, atol=2e-3)
    close(y.mean((0, 2, 3)), torch.zeros(8))
    # Groups were whitened apart from each other.
    assert found[:4, 4:].abs().max() > 0.05


def test_embeddings_are_a_map_of_one_place():
    x = maps(count=32)[:, :, 0, 0]
    heads = [DecorrelationHead(8, 2, place='projection') for _ in range(2)]
    assert heads[0].on_projection and heads[0].stage is None
    for mode in (True, False):
        found = heads[0].train(mode)(x)
        assert found.shape == x.shape
        close(found, heads[1].train(mode)(x[:, :, None, None])[:, :, 0, 0])


def test_running_moments_are_those_of_the_stream():
    """The first batches count alike: after k batches, the joint moments."""
    head = DecorrelationHead(8, momentum=0.01)
    batches = [maps(seed=i) + i for i in range(5)]
    for x in batches:
        head(x)
    stream = torch.cat(batches)
    close(head.running_mean[0], stream.mean((0, 2, 3)))
    close(head.running_covariance[0], covariance(stream), rtol=1e-3, atol=1e-3)


def test_running_moments_forget():
    """As of the raw first and second moments, averaged in float64."""
    head = DecorrelationHead(4, momentum=0.3).double()
    first, second = 0.0, 0.0
    for step in range(8):
        x = maps(channels=4, seed=step, dtype=torch.float64) * (1 + step)
        head(x)
        rows = x.permute(0, 2, 3, 1).flatten(0, 2)
        share = max(0.3, 1 / (step + 1))
        first = (1 - share) * first + share * rows.mean(0)
        second = (1 - share) * second + share * rows.T @ rows / len(rows)
    close(head.running_mean[0], first)
    close(head.running_covariance[0], second - torch.outer(first, first))


def test_evaluation_equals_training_on_a_stationary_stream():
    head = DecorrelationHead(8, num_groups=2, shuffle_seed=1)
    x = maps()
    for _ in range(3):
        expected = head(x)
    close(head.eval()(x), expected)


def test_matrix_follows_the_moments():
    """Also in a deep copy, and after loading other moments."""
    head = DecorrelationHead(8).eval()
    x = maps()
    before = head(x)
    assert head.matrix() is head.matrix()  # not computed anew
    other = copy.deepcopy(head).train()
    other(x)
    trained = other.eval()(x)
    assert (trained - before).abs().max() > 0.1
    head.load_state_dict(other.state_dict())
    close(head(x), trained)
    twin = copy.deepcopy(other)
    for _ in range(6):
        twin.train()(2 * x)
        other.train()(2 * x)
    close(twin.eval()(x), other.eval()(x))
    twin.double().eval()
    with torch.inference_mode():
        expected = twin(x.double())
    x = x.double().requires_grad_()
    found = twin(x)
    found.sum().backward()  # the cached matrix may take part in autograd
    close(found.detach(), expected.clone())


def test_state_dict_holds_all():
    """A copy needs neither the seed nor the history."""
    head = DecorrelationHead(8, num_groups=2, shuffle_seed=3)
    head(maps())
    state = head.state_dict()
    assert set(state) == {
        'running_mean',
        'running_covariance',
        'num_batches_tracked',
        'channel_order',
    }
    other = DecorrelationHead(8, num_groups=2, shuffle_seed=4)
    other.load_state_dict(state)
    close(other.eval()(maps(seed=1)), head.eval()(maps(seed=1)))
    assert 'channel_order' not in DecorrelationHead(8).state_dict()


def test_gradient_through_the_statistics():
    head = DecorrelationHead(4, num_groups=2).double()
    x = maps(2, 4, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(head, x, fast_mode=True)


def loss_of(y):
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(y.shape[1:], generator=generator, dtype=y.dtype)
    return (y * weight).tanh().mean()


def outcome(settings):
    """Output and gradient of the part of this process, and the moments."""
    head = DecorrelationHead(8, **settings)
    x = maps()
    size = len(x) // world_size()
    x = x[rank() * size : (rank() + 1) * size].requires_grad_()
    y = head(x)
    loss_of(y).backward()
    # The gradients of the ranks are averaged later.
    return y.detach(), x.grad / world_size(), head.state_dict()


@pytest.mark.parametrize(
    'settings', [dict(), dict(num_groups=4, method='newton_schulz', shuffle_seed=0)]
)
def test_two_processes_equal_one(settings):
    y, grad, state = outcome(settings)
    results = run_processes(outcome, 2, settings)
    close(torch.cat([part[0] for part in results]), y)
    close(torch.cat([part[1] for part in results]), grad, rtol=1e-3, atol=1e-6)
    for part in results:
        close(dict(part[2]), dict(state))


def test_full_precision_under_autocast():
    head, x = DecorrelationHead(8), maps()
    expected = head(x)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(head(x), expected)
        assert head.eval()(x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(num_groups=3), 'num_groups=3 does not divide num_channels=8'),
        (dict(method='pca'), "method must be one of zca, .* got 'pca'"),
        (dict(eps=-1), 'eps must not be negative, got -1'),
        (dict(place='stage4'), "place must be one of .* got 'stage4'"),
        (dict(place='after_stage'), "got 'after_stage'"),
        (dict(momentum=0), 'momentum must be above 0 and at most 1, got 0'),
        (dict(iterations=3), "'zca' does not iterate; leave iterations=3 out"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        DecorrelationHead(8, **settings)


def test_wrong_map():
    with pytest.raises(ValueError, match=r'expected \(N, 8, H, W\); set num_'):
        DecorrelationHead(8)(maps(channels=4))


def test_conv_changes_one_map_and_does_not_learn():
    with DefaultScope.overwrite_default_scope('mmseg'):
        neck = MODELS.build(dict(type='medssl_mm.DecorrelationConv', num_channels=8))
    assert isinstance(neck, DecorrelationConv)
    inputs = (maps(channels=4), maps())
    first, last = neck(inputs)
    assert first is inputs[0]
    close(last, nn.functional.conv2d(inputs[1], neck.conv.weight, neck.conv.bias))
    assert not any(p.requires_grad for p in neck.parameters())
