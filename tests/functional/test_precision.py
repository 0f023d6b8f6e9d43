import pytest
import torch
from torch.nn import functional as F

from medssl_mm.functional.contrastive import info_nce, local_info_nce, unit_rows
from medssl_mm.functional.dice import soft_dice_loss
from medssl_mm.functional.feature_mse import feature_mse
from medssl_mm.functional.geometry import patch_std, sample_map
from medssl_mm.functional.precision import at_least_float32
from medssl_mm.functional.redundancy import barlow_twins
from medssl_mm.functional.whitening import whiten
from medssl_mm.models.losses import BarlowTwinsLoss
from medssl_mm.models.losses.dice import SoftDiceLoss


@pytest.mark.parametrize(
    'given, expected',
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_float32_or_better(given, expected):
    x = torch.tensor([0.5, 2.0], dtype=given, requires_grad=True)
    y = at_least_float32(x)
    assert y.dtype == expected and y.tolist() == [0.5, 2.0]
    y.sum().backward()
    assert x.grad.dtype == given


LABELS = torch.arange(64).reshape(4, 4, 4) % 3
POINTS = torch.rand(4, 5, 2, generator=torch.Generator().manual_seed(1)) * 4


@pytest.mark.parametrize(
    'function, shape',
    [
        (unit_rows, (4, 6)),
        (lambda x: info_nce(x, x.flip(1), x.roll(1, 1)), (4, 6)),
        (lambda x: info_nce(x, x.flip(1)), (4, 6)),
        (lambda x: local_info_nce(x, x.flip(2)), (2, 4, 6)),
        (lambda x: barlow_twins(x, x.flip(1)), (4, 6)),
        (lambda x: BarlowTwinsLoss()(x, x.flip(1), None), (4, 6)),
        (lambda x: feature_mse(x, x.flip(1), 2), (4, 3, 4, 4)),
        (lambda x: whiten(x, eps=1e-2), (8, 3, 4, 4)),
        (lambda x: patch_std(x, (2, 2)), (4, 2, 4, 4)),
        (lambda x: sample_map(x, POINTS, (4, 4)), (4, 3, 4, 4)),
        (lambda x: soft_dice_loss(x, LABELS), (4, 3, 4, 4)),
        (lambda x: SoftDiceLoss()(x, LABELS), (4, 3, 4, 4)),
        (lambda x: soft_dice_loss(F.log_softmax(x, 1), LABELS), (4, 3, 4, 4)),
    ],
)
def test_float64_is_kept_and_makes_a_difference(function, shape):
    """A part that falls back to float32 would lose the last digits."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    found, rough = function(x), function(x.float())
    if not isinstance(found, dict):
        found, rough = dict(result=found), dict(result=rough)
    for name, value in found.items():
        assert (value.dtype, rough[name].dtype) == (torch.float64, torch.float32), name
        assert not torch.equal(value, value.float().double()), name
        torch.testing.assert_close(rough[name].double(), value, rtol=1e-4, atol=1e-5)
