import copy
import math

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import nn

from medssl_mm.models.utils import ForeachEMA, cosine_decay
from tests.numerics import close


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)
    )


def change(model):
    """What a training step does: other weights, other statistics."""
    dtype = model[0].weight.dtype
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model(torch.randn(8, 1, 4, 4, dtype=dtype))


def assert_same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert list(one) == list(other)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


@pytest.mark.parametrize('decay', [0.9, 0.999])
def test_equals_the_host(decay):
    model = network().double()
    ours = ForeachEMA(model, decay)
    host = ExponentialMovingAverage(model, momentum=1 - decay)
    for _ in range(4):
        change(model)
        ours.update_parameters(model)
        host.update_parameters(model)
        # Multiplication and addition may be fused in one and not the other.
        close(dict(ours.state_dict()), dict(host.state_dict()))


def test_weighs_old_and_new():
    model, decay = nn.Linear(1, 1, bias=False), 0.75
    average = ForeachEMA(model, decay)
    values = [2.0, -1.0, 5.0]
    for value in values:
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
    expected = decay * (decay * 2.0 + (1 - decay) * -1.0) + (1 - decay) * 5.0
    assert average.module.weight.item() == pytest.approx(expected)


def test_saved_average_goes_on():
    model = network()
    average = ForeachEMA(model, 0.9)
    for _ in range(2):
        change(model)
        average.update_parameters(model)
    resumed = ForeachEMA(network(seed=1), 0.9)
    resumed.load_state_dict(copy.deepcopy(average.state_dict()))
    change(model)
    average.update_parameters(model)
    resumed.update_parameters(model)
    assert_same_state(average, resumed)


def test_fresh_state_copies_again():
    """A loaded step count of 0 means that the weights are to be copied."""
    model = network()
    average = ForeachEMA(model, 0.9)
    fresh = copy.deepcopy(average.state_dict())
    change(model)
    average.update_parameters(model)
    average.load_state_dict(fresh)
    change(model)
    average.update_parameters(model)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(average.module.state_dict()[name], value)


def test_average_gets_no_gradient():
    model = network()
    average = ForeachEMA(model, 0.9)
    average.update_parameters(model)
    assert not any(p.requires_grad for p in average.parameters())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize('decay', [0, 1, 1.5, -0.1])
def test_wrong_decay(decay):
    with pytest.raises(ValueError, match=f'ema_decay .* got {decay}'):
        ForeachEMA(network(), decay)


@pytest.mark.parametrize('base', [0.9, 0.99, 0.996])
def test_cosine_decay(base):
    values = [cosine_decay(base, k / 60) for k in range(61)]
    assert values[0] == base and values[-1] == 1
    assert values[30] == pytest.approx((1 + base) / 2)
    assert values[15] == 1 - (1 - base) * (math.cos(math.pi / 4) + 1) / 2
    assert values == sorted(values)


def test_update_by_progress():
    model = nn.Linear(1, 1, bias=False).double()
    average = ForeachEMA(model, 0.9)
    average.start(model)
    start = model.weight.item()
    nn.init.constant_(model.weight, 5.0)
    assert average.update_parameters(model, 0.0) == 0.9
    expected = 0.9 * start + 0.1 * 5
    assert average.module.weight.item() == pytest.approx(expected)
    assert average.update_parameters(model, 0.5) == pytest.approx(0.95)
    expected = 0.95 * expected + 0.05 * 5
    assert average.module.weight.item() == pytest.approx(expected)
    average.update_parameters(model, 1.0)
    assert average.module.weight.item() == pytest.approx(expected)


def test_start_copies_until_there_was_an_update():
    model = network()
    average = ForeachEMA(model, 0.9)
    change(model)
    average.start(model)
    assert_same_state(average.module, model)
    average.update_parameters(model)
    change(model)
    kept = copy.deepcopy(average.state_dict())
    average.start(model)
    average.look_again()
    average.start(model)
    for name, value in average.state_dict().items():
        torch.testing.assert_close(kept[name], value, rtol=0, atol=0)


def test_own_buffers_stay():
    model = network()
    average = ForeachEMA(model, 0.9, buffers='own')
    average.start(model)
    before = average.module[1].running_mean.clone()
    change(model)
    average.update_parameters(model)
    torch.testing.assert_close(average.module[1].running_mean, before)
    with pytest.raises(ValueError, match="got 'none'"):
        ForeachEMA(model, buffers='none')
