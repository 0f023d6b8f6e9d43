import pytest
import torch

from medssl_mm.functional.contrastive import info_nce
from medssl_mm.models.losses import InfoNCELoss


def test_uses_its_temperature():
    query, key, queue = torch.randn(4, 8), torch.randn(4, 8), torch.randn(5, 8)
    loss, top1 = InfoNCELoss(temperature=0.7)(query, key, queue)
    torch.testing.assert_close(loss, info_nce(query, key, queue, 0.7))
    assert 0 <= top1 <= 1


def test_wrong_temperature():
    with pytest.raises(ValueError, match='positive, got -1'):
        InfoNCELoss(temperature=-1)
