import pytest
import torch
from mmseg.registry import MODELS

from medssl_mm.functional.dice import soft_dice_loss
from medssl_mm.models.losses.dice import SoftDiceLoss


def test_built_by_the_host_and_weighted():
    loss = MODELS.build(dict(type='medssl_mm.SoftDiceLoss', loss_weight=2.0))
    logits = torch.randn(2, 3, 4, 4)
    target = torch.randint(0, 3, (2, 4, 4))
    torch.testing.assert_close(
        loss(logits, target, weight=None, ignore_index=2),
        2 * soft_dice_loss(logits, target, ignore_index=2),
    )
    assert loss.loss_name == 'loss_dice'


def test_refusals():
    with pytest.raises(ValueError, match='must start with "loss_"'):
        SoftDiceLoss(loss_name='dice')
    with pytest.raises(ValueError, match='has no pixel weights'):
        SoftDiceLoss()(
            torch.randn(1, 2, 2, 2), torch.zeros(1, 2, 2), weight=torch.ones(1)
        )
