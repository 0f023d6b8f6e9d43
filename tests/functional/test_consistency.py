import math

import pytest
import torch

from medssl_mm.functional.consistency import probability_distance, ramp_up


def logits(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [
        3 * torch.randn(2, 4, 3, 5, generator=generator, dtype=dtype) for _ in range(2)
    ]


def slow(own, other):
    total, count = 0.0, 0
    for image in range(2):
        for y in range(3):
            for x in range(5):
                p, q = (
                    [math.exp(v) for v in part[image, :, y, x].tolist()]
                    for part in (own, other)
                )
                for a, b in zip(p, q):
                    total += (a / sum(p) - b / sum(q)) ** 2
                    count += 1
    return total / count


def test_equals_a_loop_over_pixels():
    own, other = logits()
    assert probability_distance(own, other).item() == pytest.approx(
        slow(own, other), rel=1e-12
    )


def test_known_values():
    own, _ = logits()
    assert probability_distance(own, own + 5.0) < 1e-28  # softmax has no offset
    certain = torch.tensor([[40.0, -40.0]])
    close = probability_distance(certain, -certain)
    assert close.item() == pytest.approx(1.0)  # 2 / C


def test_gradient_goes_to_the_first_alone():
    own, other = (part.requires_grad_() for part in logits())
    probability_distance(own, other).backward()
    assert other.grad is None
    assert torch.autograd.gradcheck(
        lambda x: probability_distance(x, other.detach()), [own]
    )


def test_is_float32_under_autocast():
    own, other = logits(torch.bfloat16)
    with torch.autocast('cpu', torch.bfloat16):
        found = probability_distance(own, other)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(slow(own, other), rel=1e-5)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r'one shape, got \(2, 4, 3, 5\) and \(2, 4'):
        probability_distance(logits()[0], torch.zeros(2, 4, 6, 10))


def test_factor_rises_to_one():
    steps = torch.arange(0, 50)
    factors = ramp_up(steps, 40)
    assert factors[0].item() == pytest.approx(math.exp(-5))
    assert factors[20].item() == pytest.approx(math.exp(-5 / 4))
    assert (factors.diff() >= 0).all() and (factors[40:] == 1).all()
    assert (ramp_up(steps, 0) == 1).all()
