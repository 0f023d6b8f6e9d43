import pytest
import torch

from medssl_mm.functional.distributed import rank
from medssl_mm.functional.redundancy import barlow_twins, cross_correlation
from tests.distributed import run_processes


def views(samples, channels, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(samples, channels, generator=generator, dtype=dtype)
    noise = torch.randn(samples, channels, generator=generator, dtype=dtype)
    return 2 * a + 1, a + 0.5 * noise


def slow_barlow_twins(a, b, weight, eps=1e-5):
    """The formula, entry by entry."""
    samples, channels = a.shape
    loss = 0.0
    for i in range(channels):
        x = a[:, i] - sum(a[:, i]) / samples
        x = x / (sum(x**2) / samples + eps) ** 0.5
        for j in range(channels):
            y = b[:, j] - sum(b[:, j]) / samples
            y = y / (sum(y**2) / samples + eps) ** 0.5
            entry = sum(x * y) / samples
            loss += (entry - 1) ** 2 if i == j else weight * entry**2
    return loss


# More samples than channels and the reverse take different ways.
@pytest.mark.parametrize('shape', [(9, 5), (5, 9), (6, 6)])
@pytest.mark.parametrize('weight', [5e-3, 1.0])
def test_equals_the_formula_with_its_gradient(shape, weight):
    a, b = (view.requires_grad_() for view in views(*shape))
    loss = barlow_twins(a, b, weight)
    slow = slow_barlow_twins(a, b, weight)
    torch.testing.assert_close(loss, slow)
    for fast, expected in zip(
        torch.autograd.grad(loss, (a, b)),
        torch.autograd.grad(slow, (a, b)),
        strict=True,
    ):
        torch.testing.assert_close(fast, expected)


@pytest.mark.parametrize('shape', [(9, 4), (4, 9)])
def test_gradient_equals_finite_differences(shape):
    a, b = (view.requires_grad_() for view in views(*shape))
    assert torch.autograd.gradcheck(barlow_twins, (a, b, 0.1))


@pytest.mark.parametrize('shape', [(32, 16), (8, 16)])
def test_scale_and_offset_of_channels_do_not_matter(shape):
    a, b = views(*shape)
    factor = torch.linspace(0.5, 3, 16).double()
    torch.testing.assert_close(
        barlow_twins(a * factor + 5, -3 * b - 7 * factor),
        barlow_twins(a, -b),
        rtol=1e-4,
        atol=1e-5,
    )


def test_minimum_is_equal_views_without_correlation():
    basis = torch.linalg.qr(torch.randn(20, 5, dtype=torch.float64))[0]
    basis = torch.linalg.qr(torch.cat([torch.ones(20, 1).double(), basis], 1))[0]
    white = (basis[:, 1:] * 20**0.5).requires_grad_()
    loss = barlow_twins(white, white, 1.0, eps=0.0)
    (grad,) = torch.autograd.grad(loss, white)
    assert 0 <= loss < 1e-12
    assert grad.abs().max() < 1e-12


def test_channels_of_the_views_are_down_and_across():
    a, b = views(50, 3)
    both = torch.corrcoef(torch.cat([a, b[:, :2], b[:, :1]], 1).T)
    torch.testing.assert_close(
        cross_correlation(a, torch.cat([b[:, :2], b[:, :1]], 1), eps=0.0),
        both[:3, 3:],
    )


@pytest.mark.parametrize('shape', [(9, 4), (4, 9)])
def test_inputs_are_left_as_they_are(shape):
    a, b = views(*shape)
    copies = a.clone(), b.clone()
    a.requires_grad_()
    barlow_twins(a, b).backward()
    assert torch.equal(a, copies[0]) and torch.equal(b, copies[1])


@pytest.mark.parametrize('shape', [(9, 4), (4, 9)])
def test_autocast_and_half_precision_are_computed_in_float32(shape):
    a, b = views(*shape, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        cast = barlow_twins(a, b)
    assert torch.equal(cast, barlow_twins(a, b))
    half = barlow_twins(a.bfloat16(), b.bfloat16())
    assert half.dtype == torch.float32
    assert half == barlow_twins(a.bfloat16().float(), b.bfloat16().float())


def test_constant_channel_is_finite():
    a, b = views(8, 4, dtype=torch.float32)
    a[:, 1] = 3.0
    a.requires_grad_()
    loss = barlow_twins(a, b)
    loss.backward()
    assert loss.isfinite() and a.grad.isfinite().all()


def loss_and_gradient(weight, *parts):
    """Both regimes: gradient of a linear map in front of the loss."""
    results = []
    for a, b in parts:
        leaf = weight.clone().requires_grad_()
        loss = barlow_twins(a @ leaf, b @ leaf, 0.1)
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    return results


def loss_of_this_rank(weight, *batches):
    parts = [[view.chunk(2)[rank()] for view in batch] for batch in batches]
    return loss_and_gradient(weight, *parts)


def test_two_processes_equal_one():
    batches = [views(20, 6), views(4, 6, seed=1)]
    weight = torch.randn(6, 8, dtype=torch.float64)
    expected = loss_and_gradient(weight, *batches)
    first, second = run_processes(loss_of_this_rank, 2, weight, *batches)
    for (loss, grad), left, right in zip(expected, first, second, strict=True):
        torch.testing.assert_close(left[0], loss)
        torch.testing.assert_close(right[0], loss)
        # As DistributedDataParallel averages.
        torch.testing.assert_close((left[1] + right[1]) / 2, grad)


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r'got \(4, 3\) and \(4, 2\)'):
        barlow_twins(torch.randn(4, 3), torch.randn(4, 2))
    with pytest.raises(ValueError, match='pool or flatten feature maps'):
        cross_correlation(torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2))
    with pytest.raises(ValueError, match='2 samples or more, got 1'):
        barlow_twins(torch.randn(1, 3), torch.randn(1, 3))
