import copy
import math

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from medssl_mm.functional.contrastive import nt_xent
from medssl_mm.functional.distributed import world_size
from tests.distributed import run_processes
from tests.models.algorithms.test_moco import FIXED_STATISTICS, TERMS, own_part
from tests.models.algorithms.toy import (
    TEMPERATURE,
    batches,
    build_host_method,
    build_method,
    linear_neck,
    train,
)
from tests.numerics import close

HEAD = dict(type='medssl_mm.DecorrelationHead', num_channels=64, num_groups=8, eps=1e-2)
ALONE = dict(neck=linear_neck(), **FIXED_STATISTICS)


def build(**settings):
    return build_method('SimCLR', **settings)


def test_equals_the_host_on_one_process():
    """Loss, gradients, running statistics and weights over three steps."""
    ours, host = build(), build_host_method('SimCLR')
    host.load_state_dict(ours.state_dict())  # strict: all names and shapes
    histories = train(ours, batches()), train(host, batches())
    for (our_logs, our_grads), (host_logs, host_grads) in zip(*histories):
        close(our_logs['loss_contrastive'], host_logs['loss'])
        close(our_grads, host_grads)
    close(dict(ours.state_dict()), dict(host.state_dict()))
    again = build(seed=3)
    again.load_state_dict(host.state_dict())


def test_state_dict_has_the_names_of_before():
    names = set(build().state_dict())
    assert {name.partition('.')[0] for name in names} == {'backbone', 'neck'}
    assert 'neck.fc0.bias' in names and 'neck.fc1.bias' not in names


def history_of(levels, settings):
    model = build(levels=levels, **settings)
    wrapped = DistributedDataParallel(model) if world_size() > 1 else model
    return train(wrapped, [own_part(views) for views in batches(steps=2)])


@pytest.mark.parametrize('levels', [(), TERMS])
def test_two_processes_equal_one(levels):
    """The negatives of the other process teach, too."""
    alone = history_of(levels, ALONE)
    together = run_processes(history_of, 2, levels, ALONE)
    for step, (logs, grads) in enumerate(alone):
        for history in together:
            close(history[step][1], grads)
        for name, value in logs.items():
            parts = [history[step][0][name] for history in together]
            close(torch.stack(parts).mean(), value)


def host_gradients():
    model = build_host_method('SimCLR', seed=0, **ALONE)
    wrapped = DistributedDataParallel(model) if world_size() > 1 else model
    return train(wrapped, [own_part(views) for views in batches(steps=1)])[0][1]


def test_the_host_s_gather_layer_loses_gradient():
    """What this package does otherwise, and says so."""
    alone = host_gradients()
    for grads in run_processes(host_gradients, 2):
        worst = max(
            (grads[name] - value).norm() / value.norm() for name, value in alone.items()
        )
        assert worst > 0.05


def test_views_may_have_statistics_of_their_own():
    views = next(iter(batches()))
    separate = build(joint_views=False)
    twin = copy.deepcopy(separate)
    logs = separate(views, [], mode='loss')
    rows = [twin.neck(twin.backbone(view))[0] for view in views]
    close(logs['loss_contrastive'], nt_xent(*rows, TEMPERATURE))
    joint = build()(views, [], mode='loss')
    assert (logs['loss_contrastive'] - joint['loss_contrastive']).abs() > 1e-6
    # Without batch statistics there is no difference.
    losses = [
        build(joint_views=joint, **ALONE)(views, [], mode='loss')['loss_contrastive']
        for joint in (True, False)
    ]
    close(*losses)


def test_a_term_learns_from_both_views():
    """Query and key are views of one encoder, and pass one neck."""
    model = build(levels=TERMS)
    assert set(model.multi_level_head.shared_necks) == {'stage3_toy_map_distance'}
    views = [view.requires_grad_() for view in next(iter(batches()))]
    logs = model(views, [], mode='loss')
    logs['loss_stage3_toy_map_distance'].backward()
    for view in views:
        assert view.grad.abs().sum() > 0
    assert (
        model.multi_level_head.necks['stage3_toy_map_distance']
        .layer.weight.grad.abs()
        .sum()
        > 0
    )
    swapped = build(levels=TERMS)(views[::-1], [], mode='loss')
    close(logs['loss_stage1_toy_map_distance'], swapped['loss_stage1_toy_map_distance'])


def test_a_term_may_stop_the_gradient():
    terms = [dict(stage=2, loss=dict(type='medssl_mm.FeatureMSELoss', grid=2))]
    model = build(levels=terms, joint_views=False)
    views = [view.requires_grad_() for view in next(iter(batches()))]
    model(views, [], mode='loss')['loss_stage2_feature_mse'].backward()
    assert views[0].grad.abs().sum() > 0
    assert views[1].grad is None or not views[1].grad.any()


def test_slow_necks_are_refused():
    with pytest.raises(ValueError, match='key_neck="ema" needs a slow copy'):
        build(levels=[dict(TERMS[0], key_neck='ema')])


def test_log_values():
    images = next(iter(batches()))[0]
    logs, _ = train(build(), [[images, images]])[0]
    assert logs['chance_level'].item() == pytest.approx(math.log(15))
    assert logs['contrastive_top1'] == 1  # equal views are found


def test_neck_and_terms_get_the_decorrelated_map():
    model = build(decorrelation=HEAD)
    twin = copy.deepcopy(model)
    views = next(iter(batches()))
    loss = model(views, [], mode='loss')['loss_contrastive']
    rows = twin.neck([twin.decorrelation(twin.backbone(torch.cat(views))[-1])])[0]
    close(loss, nt_xent(rows[:8], rows[8:], TEMPERATURE))
    assert set(model.encoders) == {'online'}


@pytest.mark.parametrize('settings', [{}, dict(levels=TERMS, decorrelation=HEAD)])
def test_prediction_changes_nothing(settings):
    model = build(**settings)
    train(model, batches(steps=1))
    before = copy.deepcopy(model.state_dict())
    views = next(iter(batches(seed=3)))
    first = model(views, [], mode='predict')[0].loss
    assert model.training and not first['loss_contrastive'].requires_grad
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value), name
    close(model(views, [], mode='predict')[0].loss, first)


def test_channels_last_changes_nothing_but_the_layout():
    plain, other = build(), build(channels_last=True)
    logs, grads = train(plain, batches(steps=1))[0]
    other_logs, other_grads = train(other, batches(steps=1))[0]
    close(other_logs, logs)
    close(other_grads, grads)
    other = build(channels_last=True, dtype=torch.float32)
    views = other.views(next(iter(batches(dtype=torch.float32))))
    found = []
    other.backbone.layer1.register_forward_hook(lambda _, __, out: found.append(out))
    other._encode(views)
    assert found[0].is_contiguous(memory_format=torch.channels_last)


def test_loss_is_float32_under_autocast():
    model = build(dtype=torch.float32)
    views = next(iter(batches(dtype=torch.float32)))
    with torch.autocast('cpu', torch.bfloat16):
        loss = model(views, [], mode='loss')['loss_contrastive']
    assert loss.dtype == torch.float32
    exact = build(dtype=torch.float32)(views, [], mode='loss')['loss_contrastive']
    assert loss != exact
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0.02)


def test_one_image_per_batch():
    with pytest.raises(ValueError, match='batch of 1 image .* drop_last=True'):
        build()([torch.rand(1, 1, 32, 32)] * 2, [], mode='loss')
