import copy

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from medssl_mm.functional.distributed import world_size
from medssl_mm.functional.vicreg import vicreg
from medssl_mm.registry import MODELS
from tests.distributed import run_processes
from tests.models.algorithms.test_moco import FIXED_STATISTICS, TERMS, own_part
from tests.models.algorithms.toy import (
    DTYPE,
    backbone,
    batches,
    linear_neck,
    projector,
    train,
)
from tests.numerics import close

WEIGHTS = dict(invariance_weight=5.0, variance_weight=3.0, covariance_weight=2.0)


def build(seed=0, levels=(), **settings):
    torch.manual_seed(seed)
    model = dict(
        type='medssl_mm.MultiLevelVICReg',
        backbone=backbone(),
        neck=projector(),
        head=dict(type='medssl_mm.VICRegLoss', **WEIGHTS),
        multi_level_head=dict(type='medssl_mm.MultiLevelHead', levels=list(levels)),
    )
    return MODELS.build(copy.deepcopy({**model, **settings})).to(DTYPE).train()


def test_loss_is_of_both_views_by_themselves():
    views = next(iter(batches()))
    model = build()
    twin = copy.deepcopy(model)
    logs = model(views, [], mode='loss')
    rows = [twin.neck(twin.backbone(view))[0] for view in views]
    expected, terms = vicreg(*rows, **WEIGHTS)
    close(logs['loss_vicreg'], expected)
    for name, value in terms.items():
        close(logs[name], value)
    assert not {'chance_level', 'contrastive_top1'} & set(logs)
    weight = model.backbone.conv1.weight
    found = torch.autograd.grad(logs['loss_vicreg'], weight)[0]
    close(found, torch.autograd.grad(expected, twin.backbone.conv1.weight)[0])


def history_of(levels):
    model = build(levels=levels, neck=linear_neck(), **FIXED_STATISTICS)
    wrapped = DistributedDataParallel(model) if world_size() > 1 else model
    return train(wrapped, [own_part(views) for views in batches(steps=2)])


@pytest.mark.parametrize('levels', [(), TERMS])
def test_two_processes_equal_one(levels):
    alone = history_of(levels)
    together = run_processes(history_of, 2, levels)
    for step, (logs, grads) in enumerate(alone):
        for history in together:
            close(history[step][1], grads)
        for name, value in logs.items():
            parts = [history[step][0][name] for history in together]
            close(torch.stack(parts).mean(), value)


def test_variance_keeps_the_embeddings_from_collapsing():
    """Invariance alone makes all embeddings alike; the whole loss does not."""

    def spread_after(**weights):
        model = build(head=dict(type='medssl_mm.VICRegLoss', **weights))
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        train(model, batches(steps=30), optimizer)
        with torch.no_grad():
            rows = model.encoder(next(iter(batches(seed=8)))[0]).embedding
        return rows.std(0).mean().item()

    alone = spread_after(variance_weight=0, covariance_weight=0)
    assert spread_after() > 3 * alone


def test_validation_changes_nothing():
    model = build()
    before = copy.deepcopy(model.state_dict())
    (found,) = model.predict(next(iter(batches())))
    assert found.loss['loss_vicreg'] > 0
    close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
