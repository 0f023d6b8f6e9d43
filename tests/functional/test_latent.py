import pytest
import torch

from medssl_mm.functional.latent import latent_prediction


def pair(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(5, 8, generator=generator, dtype=dtype) for _ in range(2)]


def test_equals_slow_loop():
    prediction, target = pair()
    total = 0.0
    for p, t in zip(prediction, target):
        total += -(p @ t) / (p.norm() * t.norm())
    torch.testing.assert_close(latent_prediction(prediction, target), total / 5)


def test_known_values():
    prediction, _ = pair()
    axes = torch.eye(4)
    assert latent_prediction(prediction, 3 * prediction).item() == pytest.approx(-1)
    assert latent_prediction(prediction, -prediction).item() == pytest.approx(1)
    assert latent_prediction(axes[:2], axes[2:]) == 0


def test_both_directions_at_once():
    """The rows of two calls are one call: a mean."""
    prediction, target = pair()
    there, back = (
        latent_prediction(prediction, target),
        latent_prediction(target, prediction),
    )
    both = latent_prediction(
        torch.stack([prediction, target]), torch.stack([target, prediction])
    )
    torch.testing.assert_close(both, (there + back) / 2)


def test_gradient_reaches_the_prediction_only():
    prediction, target = (x.requires_grad_() for x in pair())
    latent_prediction(prediction, target).backward()
    assert prediction.grad.abs().sum() > 0 and target.grad is None
    assert torch.autograd.gradcheck(
        lambda p: latent_prediction(p, target.detach()), (prediction,)
    )


def test_float32_under_autocast():
    prediction, target = pair(torch.float32)
    exact = latent_prediction(prediction, target)
    with torch.autocast('cpu', torch.bfloat16):
        loss = latent_prediction(prediction, target)
        reduced = latent_prediction(prediction.bfloat16(), target.bfloat16())
    assert loss.dtype == reduced.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0, atol=0)


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r'must both be \(N, D\), got \(2, 3\)'):
        latent_prediction(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match='must both be'):
        latent_prediction(torch.zeros(3), torch.zeros(3))
