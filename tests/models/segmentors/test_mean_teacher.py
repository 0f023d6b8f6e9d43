import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from medssl_mm.errors import UserError
from medssl_mm.functional.consistency import probability_distance
from medssl_mm.models.utils import ema

DECAY = 0.9


def build(seed=0, kind='medssl_mm.MeanTeacher', **settings):
    torch.manual_seed(seed)
    if kind == 'medssl_mm.MeanTeacher':
        settings = dict(dict(ema_decay=DECAY, noise=0.0, ramp_up=0), **settings)
    head = dict(in_channels=64, num_classes=3, norm_cfg=dict(type='BN'))
    return MODELS.build(
        dict(
            type=kind,
            backbone=dict(
                type='ResNet',
                depth=18,
                in_channels=1,
                base_channels=8,
                stem_channels=8,
            ),
            decode_head=dict(
                type='FCNHead', channels=8, in_index=3, num_convs=1, **head
            ),
            auxiliary_head=dict(
                type='FCNHead',
                channels=8,
                in_index=2,
                num_convs=1,
                **dict(head, in_channels=32),
                loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4),
            ),
            test_cfg=ConfigDict(mode='whole'),
            **settings,
        )
    ).double()


def samples(labels):
    generator = torch.Generator().manual_seed(3)
    found = []
    for labelled in labels:
        sample = SegDataSample(metainfo=dict(ori_shape=(64, 64), img_shape=(64, 64)))
        label = torch.randint(0, 3, (1, 64, 64), generator=generator)
        if labelled:
            sample.gt_sem_seg = PixelData(data=label)
        found.append(sample)
    return found


def images(count=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 64, 64, generator=generator, dtype=torch.float64)


def learning(model):
    return [p for p in model.parameters() if p.requires_grad]


def run(model, steps, optimizer, first=0):
    model.train()
    history = []
    for step in range(first, first + steps):
        losses = model.loss(images(seed=step), samples([1, 1, 0, 0]))
        optimizer.zero_grad()
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        optimizer.step()
        model.update_target(step / 8)
        history.append({name: value.detach() for name, value in losses.items()})
    return history


@pytest.mark.parametrize('labels', [[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1]])
def test_losses_of_labelled_slices_are_those_of_the_host(labels):
    """In evaluation mode, where a slice does not change the statistics of others."""
    model, host = build(), build(kind='EncoderDecoder')
    host.load_state_dict(
        {k: v for k, v in model.state_dict().items() if 'teacher_net' not in k}
    )
    model.eval(), host.eval()
    ours = model.loss(images(), samples(labels))
    rows = [n for n, labelled in enumerate(labels) if labelled]
    theirs = host.loss(images()[rows], [samples(labels)[n] for n in rows])
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-9, atol=1e-12)
    assert ours['unlabelled_share'] == 1 - len(rows) / 4


def test_consistency_is_the_distance_of_the_outputs_on_all_slices():
    model = build(consistency_weight=7.0)
    run(model, 2, torch.optim.SGD(learning(model), 0.1))
    model.eval()
    losses = model.loss(images(), samples([1, 0, 0, 0]))
    teacher = model.teacher
    slow = teacher['decode_head'](teacher['backbone'](images()))
    fast = model.decode_head(model.backbone(images()))
    expected = probability_distance(fast, slow)
    assert expected > 1e-8
    torch.testing.assert_close(losses['consistency'], expected.detach())
    torch.testing.assert_close(losses['loss_consistency'], 7.0 * expected)


def test_weight_rises_with_the_steps_of_the_teacher():
    model = build(ramp_up=4)
    history = run(model, 6, torch.optim.SGD(learning(model), 0.1))
    factors = [h['loss_consistency'] / h['consistency'] / 10 for h in history[1:]]
    expected = [torch.exp(torch.tensor(-5 * (1 - k / 4) ** 2)) for k in (1, 2, 3, 4)]
    for found, wanted in zip(factors, [*expected, torch.tensor(1.0)]):
        assert found.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_teacher_is_the_moving_average_and_gets_no_gradient():
    model = build()
    average = {k: v.clone() for k, v in model.named_parameters() if 'teacher' not in k}
    optimizer = torch.optim.SGD(learning(model), 0.1)
    for step in range(3):
        run(model, 1, optimizer, first=step)
        for name, value in average.items():
            now = model.get_parameter(name).detach()
            # Before the first step there is no average yet.
            value.copy_(DECAY * value + (1 - DECAY) * now)
    for name, value in average.items():
        if name.startswith('auxiliary'):
            continue
        found = model.teacher_net.module.get_parameter(name)
        torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-12)
        assert found.grad is None and not found.requires_grad


def test_teacher_starts_as_what_was_initialised_or_loaded():
    model, other = build(), build(seed=5)
    model.init_weights()
    plain = {k: v for k, v in other.state_dict().items() if 'teacher_net' not in k}
    assert not model.load_state_dict(plain, strict=False).unexpected_keys
    model.eval()
    assert model.loss(images(), samples([1, 0, 0, 0]))['consistency'] == 0


def test_noise_is_a_share_of_the_spread_of_the_images():
    torch.manual_seed(0)
    model, inputs = build(noise=0.1), 50 * images(8) + 300
    noise = model._noisy(inputs) - inputs
    assert noise.abs().max() <= 0.2 * inputs.std() * (1 + 1e-9)
    # A normal distribution cut off at two: 0.9594 of its spread is left.
    assert noise.std() / inputs.std() == pytest.approx(0.1 * 0.9594, rel=0.02)


@pytest.mark.parametrize('evaluated', ['teacher', 'student'])
def test_who_segments(evaluated):
    model = build(evaluated=evaluated)
    run(model, 3, torch.optim.SGD(learning(model), 0.1))
    model.eval()
    found = model.predict(images(), samples([1, 1, 0, 0]))
    teacher = model.teacher
    pairs = dict(
        teacher=teacher['decode_head'](teacher['backbone'](images())),
        student=model.decode_head(model.backbone(images())),
    )
    for who, logits in pairs.items():
        wanted = torch.nn.functional.interpolate(logits, (64, 64), mode='bilinear')
        same = torch.allclose(
            torch.stack([s.seg_logits.data for s in found]), wanted, atol=1e-9
        )
        assert same == (who == evaluated)


@pytest.mark.exact
def test_resume_is_exact():
    straight = build(noise=0.1)
    optimizer = torch.optim.Adam(learning(straight))
    run(straight, 2, optimizer)
    saved = copy.deepcopy((straight.state_dict(), optimizer.state_dict()))
    state = torch.get_rng_state()
    run(straight, 2, optimizer, first=2)
    resumed = build(seed=1, noise=0.1)
    optimizer = torch.optim.Adam(learning(resumed))
    resumed.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    torch.set_rng_state(state)
    run(resumed, 2, optimizer, first=2)
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_batch_without_any_label():
    with pytest.raises(UserError, match='none of the 4 slices .*collate_pairs'):
        build().loss(images(), samples([0, 0, 0, 0]))


def test_teacher_that_never_follows(monkeypatch):
    monkeypatch.setattr(ema, 'PATIENCE', 2)
    model = build().train()
    for _ in range(2):
        model.loss(images(), samples([1, 1, 0, 0]))
    with pytest.raises(UserError, match='MeanTeacher: .*TargetUpdateHook'):
        model.loss(images(), samples([1, 1, 0, 0]))


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(consistency_weight=-1), 'consistency_weight must be at least 0, got -1'),
        (dict(noise=-0.1), 'noise must be at least 0'),
        (dict(ema_decay=1.0), 'ema_decay .* got 1.0'),
        (dict(evaluated='both'), 'evaluated must be "teacher" or "student"'),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)
