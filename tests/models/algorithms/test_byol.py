import copy
import math

import pytest
import torch
from mmengine.logging import MessageHub
from torch.nn.parallel import DistributedDataParallel

from medssl_mm.engine.pretrained import load_pretrained_backbone
from medssl_mm.errors import UserError
from medssl_mm.functional.distributed import world_size
from medssl_mm.models.utils import ema
from tests.distributed import run_processes
from tests.models.algorithms.test_moco import FIXED_STATISTICS, TERMS, own_part
from tests.models.algorithms.toy import (
    DECAY,
    DIM,
    batches,
    build_host_method,
    build_method,
    linear_neck,
    predictor_head,
    train,
)
from tests.numerics import close

HEAD = dict(type='medssl_mm.DecorrelationHead', num_channels=64, num_groups=8, eps=1e-2)
FIXED = dict(
    neck=linear_neck(),
    head=predictor_head(
        dict(type='medssl_mm.LatentPredictionLoss'), linear_neck(DIM, pools=False)
    ),
    **FIXED_STATISTICS,
)
STEPS = 8  # of a whole run


def build(**settings):
    return build_method('BYOL', **settings)


def run(model, data, optimizer=None, first=0):
    """Train as the hook lets it."""
    bare = getattr(model, 'module', model)
    return train(
        model,
        data,
        optimizer,
        after_step=lambda step: bare.update_target((first + step) / STEPS),
    )


def learning(model):
    return [value for value in model.parameters() if value.requires_grad]


def at_some_step(model):
    """Online encoder and target that differ."""
    run(model, batches(steps=2, seed=5))
    return model


@pytest.mark.parametrize('loaded_into', ['host', 'ours'])
def test_equals_the_host_from_the_same_weights(loaded_into):
    """A quarter of its loss and gradient; names and shapes both ways."""
    ours = at_some_step(build(target_statistics='copied'))
    host = build_host_method('BYOL')
    host.load_state_dict(ours.state_dict())  # strict
    if loaded_into == 'ours':
        state = host.state_dict()
        ours = build(seed=3, target_statistics='copied')
        ours.load_state_dict(state)
    # The host's target follows at the beginning of the next pass: the same
    # weights as here only if it does not move.
    MessageHub.get_current_instance().update_info(
        'max_iters', int(host.target_net.steps)
    )
    views = next(iter(batches()))
    (logs, grads), (host_logs, host_grads) = (
        train(model, [views])[0] for model in (ours, host)
    )
    close(4 * logs['loss_latent_prediction'], host_logs['loss'])
    close({name: 4 * grad for name, grad in grads.items()}, host_grads)


def test_state_dict_has_the_names_of_before():
    model = build()
    assert {name.partition('.')[0] for name in model.state_dict()} == {
        'backbone',
        'neck',
        'head',
        'target_net',
    }
    assert 'target_net.module.0.conv1.weight' in model.state_dict()
    assert 'target_net.module.1.fc1.bias' in model.state_dict()
    assert 'head.predictor.fc0.weight' in model.state_dict()


def test_loss_is_the_formula():
    model = at_some_step(build())
    twin = copy.deepcopy(model)
    views = next(iter(batches()))
    found = model(views, [], mode='loss')['loss_latent_prediction']
    online = [twin.neck(twin.backbone(view))[0] for view in views]
    predicted = [twin.head.predictor([z])[0] for z in online]
    target = twin.target_net.module
    slow = [target[1]([target[0](view)[-1]])[0] for view in views]
    cosine = torch.nn.functional.cosine_similarity
    expected = (
        -(cosine(predicted[0], slow[1]) + cosine(predicted[1], slow[0])).mean() / 2
    )
    close(found, expected)
    assert -1 <= found <= 1


def test_target_is_the_online_encoder_at_the_start():
    """With whatever weights it was given after its construction."""
    model, other = build(), build(seed=5)
    model.backbone.load_state_dict(other.backbone.state_dict())
    for part in (model.target, model.encoders['target']):
        close(dict(part[0].state_dict()), dict(other.backbone.state_dict()))
    model = build()
    model.init_weights()
    close(
        dict(model.target_net.module[0].state_dict()), dict(model.backbone.state_dict())
    )


def test_gradient_stops_at_the_target():
    model = at_some_step(build(levels=TERMS))
    _, grads = run(model, batches(steps=1))[0]
    for name, parameter in model.named_parameters():
        learns = not name.startswith('target_net.')
        assert (name in grads) == learns == parameter.requires_grad
        if learns:
            assert grads[name].abs().sum() > 0, name


def test_target_follows_by_the_formula():
    """After the step, by tau of the iteration; tau rises from its base to 1."""
    model = build(levels=TERMS)
    expected = copy.deepcopy(dict(model.encoder.named_parameters()))
    taus = []

    def follow(step):
        tau = 1 - (1 - DECAY) * (math.cos(math.pi * step / STEPS) + 1) / 2
        assert model.update_target(step / STEPS) == pytest.approx(tau, abs=1e-15)
        taus.append(tau)
        for name, value in model.encoder.named_parameters():
            expected[name] = tau * expected[name].detach() + (1 - tau) * value.detach()

    train(model, batches(steps=STEPS), after_step=follow)
    close(dict(model.target.named_parameters()), expected)
    assert taus[0] == DECAY and taus == sorted(taus)
    assert taus[STEPS // 2] == pytest.approx((1 + DECAY) / 2)
    assert model.target_net.steps == STEPS


@pytest.mark.parametrize('statistics', ['own', 'copied'])
def test_statistics_of_the_target(statistics):
    model = build(target_statistics=statistics)
    views = next(iter(batches(seed=4)))
    at_some_step(model)
    same = all(
        torch.equal(value, dict(model.encoder.named_buffers())[name])
        for name, value in model.target.named_buffers()
    )
    assert same == (statistics == 'copied')
    before = model.target[0].bn1.running_mean.clone()
    model(views, [], mode='loss')
    assert model.target.training
    assert not torch.equal(model.target[0].bn1.running_mean, before)


def test_terms_are_the_mean_of_both_directions():
    """Each with the target's map of the other view as the key."""
    model = at_some_step(build(levels=TERMS))
    twin = copy.deepcopy(model)
    views = next(iter(batches()))
    logs = model(views, [], mode='loss')
    online, slow = twin.encoder, twin.target
    maps = [(online(view).maps[1], slow(view).maps[1]) for view in views]
    there = (maps[0][0] - maps[1][1]).square().mean()
    back = (maps[1][0] - maps[0][1]).square().mean()
    close(logs['loss_stage1_toy_map_distance'], (there + back) / 2)
    swapped = copy.deepcopy(model)(views[::-1], [], mode='loss')
    close(swapped['loss_stage3_toy_map_distance'], logs['loss_stage3_toy_map_distance'])


def history_and_state(levels):
    model = build(levels=levels, **FIXED)
    wrapped = DistributedDataParallel(model) if world_size() > 1 else model
    history = run(wrapped, [own_part(views) for views in batches(steps=3)])
    return history, model.state_dict()


@pytest.mark.parametrize('levels', [(), TERMS])
def test_two_processes_equal_one(levels):
    history, state = history_and_state(levels)
    results = run_processes(history_and_state, 2, levels)
    for two, two_state in results:
        for (_, grads), (_, expected) in zip(two, history):
            close(grads, expected)
        close(dict(two_state), dict(state))
    for step, (logs, _) in enumerate(history):
        for name, value in logs.items():
            parts = [two[step][0][name] for two, _ in results]
            close(torch.stack(parts).mean(), value)


@pytest.mark.exact
@pytest.mark.parametrize('statistics', ['own', 'copied'])
@pytest.mark.parametrize('settings', [{}, dict(levels=TERMS, decorrelation=HEAD)])
def test_resume_is_exact(settings, statistics):
    settings = dict(settings, target_statistics=statistics)
    data = list(batches(steps=4))
    straight = build(**settings)
    optimizer = torch.optim.Adam(learning(straight))
    run(straight, data[:2], optimizer)
    saved = copy.deepcopy((straight.state_dict(), optimizer.state_dict()))
    run(straight, data[2:], optimizer, first=2)
    resumed = build(seed=1, **settings)
    optimizer = torch.optim.Adam(learning(resumed))
    resumed.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    run(resumed, data[2:], optimizer, first=2)
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@pytest.mark.parametrize('settings', [{}, dict(levels=TERMS, decorrelation=HEAD)])
def test_prediction_changes_nothing(settings):
    model = at_some_step(build(**settings))
    before = copy.deepcopy(model.state_dict())
    views = next(iter(batches(seed=3)))
    first = model(views, [], mode='predict')[0].loss
    assert model.training and not first['loss_latent_prediction'].requires_grad
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value), name
    close(model(views, [], mode='predict')[0].loss, first)


def test_channels_last_changes_nothing_but_the_layout():
    (logs, grads), (other_logs, other_grads) = (
        run(build(channels_last=last), batches(steps=1))[0] for last in (False, True)
    )
    close(other_logs, logs)
    close(other_grads, grads)
    other = build(channels_last=True, dtype=torch.float32)
    views = other.views(next(iter(batches(dtype=torch.float32))))
    for encoder in other.encoders.values():
        maps = encoder(views[0]).maps[4]
        assert maps.is_contiguous(memory_format=torch.channels_last)


def test_loss_is_float32_under_autocast():
    model = build(dtype=torch.float32)
    views = next(iter(batches(dtype=torch.float32)))
    with torch.autocast('cpu', torch.bfloat16):
        loss = model(views, [], mode='loss')['loss_latent_prediction']
    exact = build(dtype=torch.float32)(views, [], mode='loss')['loss_latent_prediction']
    assert loss.dtype == torch.float32 and loss != exact
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0.05)


def test_evaluation_takes_the_target():
    model = at_some_step(build())
    assert model.evaluated == 'target'
    assert model.encoders['target'].backbone is model.target_net.module[0]
    assert model.encoders['online'].backbone is model.backbone
    from mmseg.models.backbones import ResNet

    into = ResNet(18, in_channels=1, base_channels=8, stem_channels=8)
    report = load_pretrained_backbone(into, model.state_dict())
    assert report.encoder == 'target' and 'encoder    target' in str(report)
    close(into.conv1.weight, model.target[0].conv1.weight.float(), rtol=1e-6, atol=1e-7)
    load_pretrained_backbone(into, model.state_dict(), 'online')
    close(into.conv1.weight, model.backbone.conv1.weight.float(), rtol=1e-6, atol=1e-7)


def test_forgotten_target_is_an_error(monkeypatch):
    monkeypatch.setattr(ema, 'PATIENCE', 2)
    model, views = build(), next(iter(batches(size=32)))
    for _ in range(2):
        model(views, [], mode='loss')
    with pytest.raises(UserError, match='medssl_mm.TargetUpdateHook'):
        model(views, [], mode='loss')
    model.update_target(0)
    model(views, [], mode='loss')


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(ema_decay=1.0), 'ema_decay .* got 1.0'),
        (dict(target_statistics='none'), 'target_statistics must be "own" or'),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_one_image_per_batch():
    with pytest.raises(ValueError, match='batch of 1 image .* drop_last=True'):
        build()([torch.rand(1, 1, 32, 32)] * 2, [], mode='loss')
