import math

import pytest
import torch

from medssl_mm.functional.contrastive import local_info_nce
from medssl_mm.models.heads import LevelContext
from medssl_mm.models.losses import LocalInfoNCELoss
from medssl_mm.models.necks import LocalRegions
from tests.models.algorithms.toy import batches, build_ours


def regions(seed):
    torch.manual_seed(seed)
    return LocalRegions(torch.randn(3, 5, 8), torch.rand(3, 5) > 0.2)


@pytest.mark.parametrize('negatives', ['image', 'batch'])
def test_uses_its_settings_and_both_masks(negatives):
    query, key = regions(0), regions(1)
    logs = LocalInfoNCELoss(0.7, negatives)(query, key, None)
    torch.testing.assert_close(
        logs.pop('loss'),
        local_info_nce(
            query.features, key.features, 0.7, query.valid & key.valid, negatives
        ),
    )
    assert set(logs) == {'chance_level', 'top1', 'valid_share'}


def test_release_term_is_log_400_whatever_the_views_show():
    loss = LocalInfoNCELoss(legacy='release')
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
        loss=dict(type='medssl_mm.LocalInfoNCELoss', legacy='release'),
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
            assert not logs['loss_stage3_local_info_nce'].requires_grad
            values.append(logs['loss_stage3_local_info_nce'])
    assert values[0] == values[1]
    assert values[0].item() == pytest.approx(0.5 * math.log(400), abs=0.01)
    torch.testing.assert_close(grads[1], grads[0], rtol=0, atol=0)


def test_wrong_legacy():
    with pytest.raises(ValueError, match="got 'seed'"):
        LocalInfoNCELoss(legacy='seed')
