import pytest
import torch

from medssl_mm.functional.contrastive import nt_xent
from medssl_mm.models.losses import NTXentLoss


def test_uses_its_temperature():
    view_a, view_b = torch.randn(4, 8), torch.randn(4, 8)
    loss, top1 = NTXentLoss(temperature=0.7)(view_a, view_b)
    torch.testing.assert_close(loss, nt_xent(view_a, view_b, 0.7))
    assert 0 <= top1 <= 1


def test_wrong_temperature():
    with pytest.raises(ValueError, match='positive, got -1'):
        NTXentLoss(temperature=-1)
