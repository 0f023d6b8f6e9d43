import pytest
import torch

from medssl_mm.functional.dice import soft_dice_loss


def reference(logits, target, ignore_index=255, eps=1e-5):
    prob = torch.softmax(logits, 1)
    terms = []
    for c in range(1, logits.shape[1]):
        both = size_p = size_y = 0.0
        for n in range(target.shape[0]):
            for y in range(target.shape[1]):
                for x in range(target.shape[2]):
                    if target[n, y, x] == ignore_index:
                        continue
                    truth = float(target[n, y, x] == c)
                    both = both + prob[n, c, y, x] * truth
                    size_p = size_p + prob[n, c, y, x]
                    size_y = size_y + truth
        if size_y:
            terms.append(1 - (2 * both + eps) / (size_p + size_y + eps))
    return sum(terms) / len(terms)


def test_equals_loop_with_ignored_pixels_and_absent_class():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 6, dtype=torch.double, requires_grad=True)
    target = torch.randint(0, 3, (2, 5, 6))  # class 3 is absent
    target[0, :2] = 255
    loss = soft_dice_loss(logits, target)
    expected = reference(logits, target)
    torch.testing.assert_close(loss, expected)
    (grad,) = torch.autograd.grad(loss, logits)
    (wanted,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(grad, wanted, rtol=1e-7, atol=1e-12)
    assert not grad[0, :, :2].any()


def test_every_class_weighs_the_same():
    """Losing a 4-pixel organ costs as much as losing a big one."""
    target = torch.zeros(1, 32, 32, dtype=torch.long)
    target[0, :16] = 1
    target[0, 20:22, 20:22] = 2
    perfect = 50.0 * torch.nn.functional.one_hot(target, 3).permute(0, 3, 1, 2).float()
    assert soft_dice_loss(perfect, target) < 1e-4
    for organ in (1, 2):
        lost = perfect.clone()
        pixels = (target == organ).unsqueeze(1)
        lost = torch.where(pixels, torch.tensor([50.0, 0, 0]).view(1, 3, 1, 1), lost)
        assert soft_dice_loss(lost, target).item() == pytest.approx(0.5, abs=1e-3)


def test_zero_and_differentiable_without_any_class():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    for value in (0, 255):
        loss = soft_dice_loss(logits, torch.full((1, 4, 4), value))
        (grad,) = torch.autograd.grad(loss, logits)
        assert loss == 0 and not grad.any()


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r'logits must be \(N, C, \*\)'):
        soft_dice_loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 5, 4))
    with pytest.raises(ValueError, match='target holds labels 0 to 7'):
        soft_dice_loss(torch.zeros(1, 3, 1, 2), torch.tensor([[[0, 7]]]))
