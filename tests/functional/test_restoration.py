"""Hidden patches, the loss on them, and layers that see the visible cells alone."""

import numpy as np
import pytest
import torch
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from torch import nn

from medssl_mm.backbones.dilation import DilatedAvgPool2d
from medssl_mm.errors import UserError
from medssl_mm.functional.restoration import (
    hidden_at,
    masked_l1,
    mean_of_visible,
    own_statistics,
    sparse,
)
from medssl_mm.models.backbones.res_net_same_padding import SamePaddingMaxPool2d


def patches(n=2, rows=4, columns=4, share=0.6, seed=0):
    order = torch.rand(
        n, rows * columns, generator=torch.Generator().manual_seed(seed)
    ).argsort(1)
    hidden = order < round(share * rows * columns)
    return hidden.view(n, rows, columns)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 7, stride=2, padding=3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
    ).double()


def test_hidden_cells_are_those_of_the_patches():
    hidden = patches()
    for size in ((16, 16), (8, 12), (4, 4), (2, 4), (1, 1)):
        found = hidden_at(hidden, size)
        assert found.shape == (2, 1, *size)
        for n, y, x in np.ndindex(2, *size):
            rows = {
                r
                for r in range(4)
                if r * size[0] < (y + 1) * 4 and (r + 1) * size[0] > y * 4
            }
            columns = {
                c
                for c in range(4)
                if c * size[1] < (x + 1) * 4 and (c + 1) * size[1] > x * 4
            }
            covered = [hidden[n, r, c] for r in rows for c in columns]
            assert found[n, 0, y, x] == all(covered)
    with pytest.raises(ValueError, match='4 x 4 patches do not fit a map of 6 x 8'):
        hidden_at(hidden, (6, 8))


def test_loss_is_the_mean_over_hidden_pixels():
    """Value and gradient against a loop; a blank image is nothing special."""
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(2, 2, 8, 8, dtype=torch.float64, generator=generator)
    target[1] = 0
    prediction = torch.randn(target.shape, dtype=torch.float64, generator=generator)
    prediction.requires_grad_()
    hidden = patches()
    errors = [
        (prediction[n, c, y, x] - target[n, c, y, x]).abs()
        for n, c, y, x in np.ndindex(*target.shape)
        if hidden[n, y // 2, x // 2]
    ]
    expected = torch.stack(errors).mean()
    found = masked_l1(prediction, target, hidden)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(one, prediction)[0] for one in (found, expected))
    )
    assert masked_l1(target, target, hidden) == 0
    means = mean_of_visible(target, hidden)
    for n, c in np.ndindex(2, 2):
        seen = [
            target[n, c, y, x]
            for y, x in np.ndindex(8, 8)
            if not hidden[n, y // 2, x // 2]
        ]
        torch.testing.assert_close(means[n, c, 0, 0], torch.stack(seen).mean())


def test_loss_is_of_float32_under_autocast():
    target = torch.rand(1, 1, 8, 8)
    prediction = torch.rand(1, 1, 8, 8).bfloat16()
    hidden = patches(1)
    with torch.autocast('cpu', torch.bfloat16):
        found = masked_l1(prediction, target, hidden)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, masked_l1(prediction.float(), target, hidden))


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_sparse_layers_are_those_of_the_visible_cells(layout):
    """Every layer against a loop that knows the visible cells alone."""
    net = network().to(memory_format=layout).train()
    images = torch.randn(3, 1, 32, 32, dtype=torch.float64)
    images = images.contiguous(memory_format=layout)
    hidden = patches(3)
    level = images * ~hidden_at(hidden, (32, 32))
    maps = []
    before = [dict(module.named_buffers()) for module in net]
    with sparse(net, hidden):
        found = level
        for module in net:
            found = module(found)
            maps.append(found)
    running = [module.running_mean.clone() for module in net if hasattr(module, 'eps')]
    net = network()
    means = []
    for module, got in zip(net, maps, strict=True):
        if isinstance(module, nn.BatchNorm2d):
            seen = ~hidden_at(hidden, tuple(level.shape[-2:]))
            result = torch.zeros_like(level)
            for channel in range(level.shape[1]):
                values = level[:, channel][seen[:, 0]]
                std = (values.var(unbiased=False) + module.eps).sqrt()
                normal = (values - values.mean()) / std
                result[:, channel][seen[:, 0]] = normal
            means.append(
                0.1
                * torch.stack(
                    [level[:, c][seen[:, 0]].mean() for c in range(level.shape[1])]
                )
            )
            level = result
        else:
            level = module(level)
            level = level * ~hidden_at(hidden, tuple(level.shape[-2:]))
        torch.testing.assert_close(got, level)
        assert not got[hidden_at(hidden, tuple(got.shape[-2:])).expand_as(got)].any()
    for got, expected in zip(running, means, strict=True):
        torch.testing.assert_close(got, expected)
    assert before


@pytest.mark.parametrize('evaluated', [False, True])
@pytest.mark.parametrize('training', [False, True])
def test_running_statistics_stay(training, evaluated):
    """Batches are normalised by their own statistics, which nothing keeps."""
    net = network().train(training)
    images = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    expected = network().train(training or evaluated)(images)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with own_statistics(net, evaluated):
        found = net(images)
    torch.testing.assert_close(found, expected)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [(m.training, m.track_running_stats) for m in net if hasattr(m, 'eps')] == [
        (training, True)
    ] * 3


def test_a_network_is_as_before_afterwards():
    net = network().eval()
    images = torch.randn(1, 1, 32, 32, dtype=torch.float64)
    expected = net(images)
    names = [set(vars(module)) for module in net]
    with pytest.raises(RuntimeError, match='stop'):
        with sparse(net, patches(1)):
            net(images)
            raise RuntimeError('stop')
    torch.testing.assert_close(net(images), expected, rtol=0, atol=0)
    assert [set(vars(module)) for module in net] == names
    # With nothing hidden there is nothing to see.
    with sparse(net, torch.zeros(1, 4, 4, dtype=torch.bool)):
        torch.testing.assert_close(net(images), expected)


def test_without_it_visible_cells_grow():
    net = network().eval()
    images = torch.randn(1, 1, 32, 32, dtype=torch.float64)
    hidden = patches(1)
    shown = images * ~hidden_at(hidden, (32, 32))
    dense = net(shown)
    at_hidden = hidden_at(hidden, tuple(dense.shape[-2:])).expand_as(dense)
    assert dense[at_hidden].abs().min() > 0
    with sparse(net, hidden):
        assert not net(shown)[at_hidden].any()


@pytest.mark.parametrize(
    'pooling',
    [nn.MaxPool2d(3, 2, 1), SamePaddingMaxPool2d(), DilatedAvgPool2d(2, 2)],
)
def test_no_pooling_fills_hidden_cells(pooling):
    hidden = patches()
    images = torch.rand(2, 1, 16, 16, dtype=torch.float64) + 1
    with sparse(nn.Sequential(pooling), hidden):
        found = pooling(images * ~hidden_at(hidden, (16, 16)))
    behind = hidden_at(hidden, tuple(found.shape[-2:]))
    assert not found[behind].any() and (found[~behind] > 0).all()


@pytest.mark.parametrize('context', ['sparse', 'statistics'])
@pytest.mark.parametrize(
    'recompute, name',
    [
        (lambda net: setattr(net[4], 'with_cp', True), 'with_cp is on in 4'),
        (
            lambda net: turn_on_activation_checkpointing(net, '4'),
            'activation_checkpointing is on in 4',
        ),
        (
            lambda net: setattr(net, 'grad_checkpointing', True),
            'grad_checkpointing is on in the backbone',
        ),
    ],
)
def test_what_is_computed_once_more_is_refused(recompute, name, context):
    net = network().train()
    recompute(net)
    manager = sparse(net, patches()) if context == 'sparse' else own_statistics(net)
    with pytest.raises(UserError, match=f'{name} .* set with_cp=False in the backbone'):
        with manager:
            pass
    with torch.no_grad():  # nothing is computed once more
        manager = sparse(net, patches()) if context == 'sparse' else own_statistics(net)
        with manager:
            net(torch.rand(2, 1, 32, 32, dtype=torch.float64))
