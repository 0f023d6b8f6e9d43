import pytest
import torch

from medssl_mm.functional.contrastive import local_info_nce
from medssl_mm.models.losses import LocalInfoNCELoss
from medssl_mm.models.necks import LocalRegions


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
