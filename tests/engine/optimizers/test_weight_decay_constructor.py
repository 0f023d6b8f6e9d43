import pytest
import torch
import torchvision
from mmengine.optim import build_optim_wrapper
from torch import nn

from medssl_mm.errors import UserError
from tests.models.algorithms.toy import build_method


def build(model, optimizer=None, **settings):
    optimizer = optimizer or dict(type='Adam', lr=0.1, weight_decay=0.5)
    return build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            constructor='medssl_mm.WeightDecayConstructor',
            optimizer=optimizer,
            **settings,
        ),
    )


def decay_of(model, wrapper):
    """Weight decay of every parameter, by name."""
    decays = {
        id(value): group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for value in group['params']
    }
    assert len(decays) == sum(len(g['params']) for g in wrapper.optimizer.param_groups)
    return {name: decays.get(id(value)) for name, value in model.named_parameters()}


def test_biases_and_normalisation_by_module_type():
    model = torchvision.models.resnet18(weights=None)
    found = decay_of(model, build(model))
    norms = {
        f'{name}.'
        for name, part in model.named_modules()
        if isinstance(part, nn.BatchNorm2d)
    }
    for name, value in found.items():
        free = name.endswith('bias') or name.rpartition('.')[0] + '.' in norms
        assert value == (0 if free else 0.5), name
    assert found['layer2.0.downsample.1.weight'] == 0


def test_by_name_as_the_original_does():
    """What it misses: a normalisation that is not called bn."""
    model = torchvision.models.resnet18(weights=None)
    found = decay_of(model, build(model, paramwise_cfg=dict(by_name=True)))
    for name, value in found.items():
        assert value == (0 if 'bias' in name or 'bn' in name else 0.5), name
    assert found['layer2.0.downsample.1.weight'] == 0.5


def test_every_kind_of_normalisation():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 1),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),
        nn.SyncBatchNorm(4),
        nn.LayerNorm(4),
        nn.MultiheadAttention(4, 2),
    )
    found = decay_of(model, build(model))
    decaying = {name for name, value in found.items() if value}
    assert decaying == {'0.weight', '5.in_proj_weight', '5.out_proj.weight'}


def test_slow_copies_are_left_out():
    model = build_method('BYOL')
    found = decay_of(model, build(model))
    for name, value in found.items():
        assert (value is None) == name.startswith('target_net.')
    assert len(build(model).optimizer.param_groups) == 2


def test_decay_acts_on_weights_alone():
    """Without a gradient a step of SGD is the decay."""
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wrapper = build(model, dict(type='SGD', lr=0.1, weight_decay=0.5))
    for value in model.parameters():
        value.grad = torch.zeros_like(value)
    wrapper.step()
    for name, value in model.named_parameters():
        factor = 0.95 if name == '0.weight' else 1
        torch.testing.assert_close(value.detach(), factor * before[name])


def test_lars_of_the_host_does_not_adapt_what_does_not_decay():
    """Where it adapts, the step is as long as the weights are, times 0.001."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    nn.init.constant_(model[0].bias, 2.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wrapper = build(model, dict(type='mmselfsup.LARS', lr=0.1, weight_decay=0.0))
    for value in model.parameters():
        value.grad = torch.ones_like(value)
    wrapper.step()
    moved = {n: (before[n] - v.detach()).norm() for n, v in model.named_parameters()}
    torch.testing.assert_close(
        moved['0.weight'], 0.1 * 0.001 * before['0.weight'].norm()
    )
    torch.testing.assert_close(moved['0.bias'], torch.tensor(0.1 * 3**0.5))
    torch.testing.assert_close(moved['1.weight'], torch.tensor(0.1 * 3**0.5))


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(paramwise_cfg=dict(norm_decay_mult=0)), 'unknown norm_decay_mult'),
        (dict(optimizer=dict(type='SGD', lr=0.1)), 'has no weight_decay'),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(UserError, match=message):
        build(nn.Linear(2, 2), **settings)
