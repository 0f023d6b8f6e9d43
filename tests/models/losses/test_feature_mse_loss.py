import pytest
import torch
from torch.nn import functional as F

from medssl_mm.models.heads import LevelContext
from medssl_mm.models.losses import FeatureMSELoss
from tests.distributed import run_processes
from tests.models.algorithms.test_moco import FIXED_STATISTICS
from tests.models.algorithms.test_moco import train_distributed as trained
from tests.models.algorithms.toy import batches, build_ours
from tests.numerics import close

LEVELS = [
    dict(stage=stage, loss=dict(type='medssl_mm.FeatureMSELoss'), weight=0.25)
    for stage in range(1, 5)
]


def maps(size, seed=0):
    torch.manual_seed(seed)
    return torch.randn(2, 3, size, size)


@pytest.mark.parametrize('stage, cells', [(0, 16), (1, 16), (2, 16), (3, 4), (4, 4)])
def test_default_grid_by_stage(stage, cells):
    query, key = maps(38), maps(38, 1)
    logs = FeatureMSELoss()(query, key, LevelContext(stage, (), ()))
    torch.testing.assert_close(
        logs.pop('loss'),
        F.mse_loss(*(F.adaptive_avg_pool2d(view, cells) for view in (query, key))),
    )
    assert set(logs) == {'norm', 'relative', 'spread'}


def test_stated_grid_holds_on_every_stage():
    query, key = maps(8), maps(8, 1)
    means = [view.mean(dim=(2, 3)) for view in (query, key)]
    for stage in (1, 4):
        logs = FeatureMSELoss(grid=1)(query, key, LevelContext(stage, (), ()))
        torch.testing.assert_close(logs['loss'], F.mse_loss(*means))


def test_wrong_grid_is_refused_at_once():
    with pytest.raises(ValueError, match='grid must be .* got 0'):
        FeatureMSELoss(grid=0)


def test_terms_of_the_published_code():
    """Sum of lambda_i * mean((q_i - k_i)^2) on pooled maps, as training."""
    model = build_ours(levels=LEVELS)
    views = next(iter(batches(steps=1)))
    logs = model(views, [], mode='loss')
    with torch.no_grad():
        query = model.encoder(model.lay_out(views[0])).maps.values()
        key = model.encoder_k.module(model.lay_out(views[1])).maps.values()
    for stage, q, k in zip((1, 2, 3, 4), query, key):
        side = min((16, 16, 4, 4)[stage - 1], q.shape[2])
        q, k = (F.adaptive_avg_pool2d(m, side) for m in (q, k))
        close(
            logs[f'loss_stage{stage}_feature_mse'].detach(),
            0.25 * ((q - k) ** 2).mean(),
        )
        close(logs[f'stage{stage}_feature_mse_norm'], q.norm(dim=1).mean())


def test_gradient_goes_to_the_query_side_up_to_the_stage():
    model = build_ours(levels=LEVELS[1:2])
    logs = model(next(iter(batches(steps=1))), [], mode='loss')
    logs['loss_stage2_feature_mse'].backward()
    reached = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert 'backbone.layer2.1.conv2.weight' in reached
    assert not [
        name for name in reached if not name.startswith('backbone.') or 'layer3' in name
    ]


def history(levels):
    model = build_ours(levels=levels, **FIXED_STATISTICS)
    return trained(model, steps=2)


def test_two_processes_equal_one():
    expected = history(LEVELS)
    results = run_processes(history, 2, LEVELS)
    for step, (logs, grads) in enumerate(expected):
        for found in results:
            close(found[step][1], grads)
        for name in logs:
            if name.startswith('loss'):
                parts = [found[step][0][name] for found in results]
                close(torch.stack(parts).mean(), logs[name])
