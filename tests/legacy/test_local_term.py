import math

import pytest
import torch

from medssl_mm.legacy.local_term import ReleaseLocalLoss, release_local_term
from medssl_mm.models.heads import LevelContext
from tests.models.algorithms.toy import batches, build_ours


def test_release_term_is_log_400_whatever_the_views_show():
    loss = ReleaseLocalLoss()
    torch.manual_seed(0)
    first, second = torch.randn(2, 4, 3, 96, 96)
    for views in ((first, second), (first, first)):
        context = LevelContext(3, views, [])
        value = loss(None, None, context)['loss']
        assert value.item() == pytest.approx(math.log(400), abs=0.01)


def test_release_term_is_constant_in_the_parameters():
    """It adds a number to the log, and nothing to any gradient."""
    views = next(iter(batches(steps=1)))
    values, grads = [], []
    level = dict(
        stage=3,
        weight=0.5,
        loss=dict(type='medssl_mm.ReleaseLocalLoss'),
    )
    for seed, levels in ((0, ()), (0, [level]), (1, [level])):
        model = build_ours(seed, levels)
        logs = model(views, [], mode='loss')
        sum(v for name, v in logs.items() if 'loss' in name).backward()
        grads.append(
            {
                name: parameter.grad
                for name, parameter in model.named_parameters()
                if parameter.grad is not None
            }
        )
        if levels:
            assert not logs['loss_stage3_release_local'].requires_grad
            values.append(logs['loss_stage3_release_local'])
    assert values[0] == values[1]
    assert values[0].item() == pytest.approx(0.5 * math.log(400), abs=0.01)
    torch.testing.assert_close(grads[1], grads[0], rtol=0, atol=0)


def test_release_term_equals_a_loop():
    """From the released code's description, step by step."""
    first, second = torch.rand(2, 2, 3, 90, 84) * 20
    regions_of = []
    for view in (first, second):
        pooled = torch.nn.MaxPool2d(3, 2, 1)(view)
        level = (pooled / pooled.flatten(2).norm(dim=2)[..., None, None]).mean(dim=1)
        side = min(level.shape[1:]) // 20
        regions_of.append(
            torch.stack(
                [
                    level[:, i * side : (i + 1) * side, :side].flatten(1)
                    for i in range(20)
                ],
                dim=1,
            )
        )
    total = 0.0
    for ours, theirs in zip(*regions_of):
        own = [torch.dot(ours[i], theirs[i]) for i in range(20)]
        other = [
            torch.dot(ours[i], theirs[j])
            for i in range(20)
            for j in range(20)
            if i != j
        ]
        logits = torch.stack([*own, *other]) / 0.2
        assert len(logits) == 400
        total = total + logits.exp().sum().log() - logits[0]
    torch.testing.assert_close(release_local_term(first, second), total / 2)


def test_release_term_of_small_views():
    views = torch.ones(2, 2, 1, 32, 64)
    with pytest.raises(ValueError, match=r'at least 40 pixels, got \(2, 1, 3'):
        release_local_term(*views)
