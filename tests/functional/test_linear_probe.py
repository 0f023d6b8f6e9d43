import pytest
import torch
from torch.nn import functional as F

from medssl_mm.functional.linear_probe import balanced_weights, weighted_loss_sum


def exclusive(*counts):
    rows = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return F.one_hot(rows, len(counts)).bool()


def test_weights_of_two_classes():
    """21 % positives."""
    weights = balanced_weights(exclusive(237, 63))
    torch.testing.assert_close(weights, torch.tensor([0.21, 0.79]).double())


def test_every_class_has_the_same_total_weight():
    targets = exclusive(5, 20, 75)
    weights = balanced_weights(targets)
    totals = weights * targets.sum(0)
    torch.testing.assert_close(totals, totals[0].expand(3))
    assert weights.sum() == pytest.approx(1)


def test_weights_of_several_labels():
    """Each class is a pair of its own."""
    targets = torch.zeros(100, 2, dtype=torch.bool)
    targets[:21, 0] = True
    targets[50:, 1] = True
    weights = balanced_weights(targets, multi_label=True)
    wanted = torch.tensor([[0.21, 0.5], [0.79, 0.5]]).double()
    torch.testing.assert_close(weights, wanted)


def test_a_class_without_images_has_no_weight():
    with pytest.raises(ValueError, match=r'every class needs images .* \[3\.0, 0\.0\]'):
        balanced_weights(exclusive(3, 0))
    with pytest.raises(ValueError, match='every class needs images'):
        balanced_weights(torch.ones(3, 1, dtype=torch.bool), multi_label=True)


@pytest.mark.parametrize('weights', [None, torch.tensor([0.2, 0.3, 0.5]).double()])
def test_loss_of_exclusive_classes(weights):
    logits = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)).double()
    targets = exclusive(2, 3, 5)
    total, weight = weighted_loss_sum(logits, targets, weights=weights)
    wanted = F.cross_entropy(logits, targets.double().argmax(1), weight=weights)
    torch.testing.assert_close(total / weight, wanted)


def test_loss_of_several_labels():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator).double()
    targets = torch.rand(4, 3, generator=generator) > 0.5
    total, weight = weighted_loss_sum(logits, targets, multi_label=True)
    torch.testing.assert_close(
        total / weight, F.binary_cross_entropy_with_logits(logits, targets.double())
    )
    pair = torch.tensor([[0.1, 0.2, 0.3], [0.9, 0.8, 0.7]]).double()
    total, weight = weighted_loss_sum(logits, targets, True, pair)
    slow_total = slow_weight = 0.0
    for image in range(4):
        for c in range(3):
            p = 1 / (1 + torch.exp(-logits[image, c]))
            w = pair[int(targets[image, c]), c]
            slow_total -= w * torch.log(p if targets[image, c] else 1 - p)
            slow_weight += w
    torch.testing.assert_close(total, slow_total)
    torch.testing.assert_close(weight, slow_weight)
