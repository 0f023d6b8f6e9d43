import pytest
import torch

from medssl_mm.functional.vicreg import covariance_penalty, variance_hinge, vicreg
from tests.distributed import run_processes
from tests.numerics import close


def views(samples, channels, seed=0, places=()):
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, *places, channels)
    a = torch.randn(shape, generator=generator, dtype=torch.float64)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    # Channels of all scales, some of which covary.
    mix = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    return a @ mix * 0.3, (a + 0.5 * noise) @ mix * 0.3


def slow(a, b, weights):
    """By loops over samples and pairs of channels."""
    samples, size = a.shape
    invariance = sum((p - q) ** 2 for p, q in zip(a.flatten(), b.flatten())) / a.numel()
    variance = covariance = 0.0
    for view in (a, b):
        mean = view.mean(0)
        for i in range(size):
            spread = sum((x - mean[i]) ** 2 for x in view[:, i]) / (samples - 1)
            variance = variance + max(0.0, 1 - (spread + 1e-4).sqrt()) / size / 2
            for j in range(size):
                if i != j:
                    c = ((view[:, i] - mean[i]) * (view[:, j] - mean[j])).sum()
                    covariance = covariance + (c / (samples - 1)) ** 2 / size
    return sum(w * t for w, t in zip(weights, (invariance, variance, covariance)))


@pytest.mark.parametrize('shape', [(9, 4), (4, 9)], ids=['samples', 'channels'])
@pytest.mark.parametrize('weights', [(25.0, 25.0, 1.0), (0.5, 3.0, 7.0)])
def test_a_loop_over_samples_and_channels(shape, weights):
    a, b = views(*shape)
    a.requires_grad_(), b.requires_grad_()
    found, terms = vicreg(a, b, *weights)
    expected = slow(a, b, weights)
    close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, (a, b)), torch.autograd.grad(expected, (a, b))
    ):
        close(one, other)
    assert 0 < terms['variance'] < 0.99 and not terms['variance'].requires_grad
    close(
        sum(
            w * terms[name]
            for w, name in zip(weights, ('invariance', 'variance', 'covariance'))
        ),
        found.detach(),
    )


def test_statistics_of_places_are_of_each_place():
    a, b = views(6, 5, places=(3,))
    found, terms = vicreg(a, b)
    alone = [vicreg(a[:, place], b[:, place]) for place in range(3)]
    close(found, torch.stack([loss for loss, _ in alone]).mean())
    for name, value in terms.items():
        close(value, torch.stack([parts[name] for _, parts in alone]).mean())


def test_what_the_terms_are_for():
    torch.manual_seed(0)
    white, _ = torch.linalg.qr(torch.randn(50, 4, dtype=torch.float64))
    white = white - white.mean(0)
    white, _ = torch.linalg.qr(white)
    white = white * 49**0.5 * 2  # standard deviation 2, nothing covaries
    assert variance_hinge(white) == 0
    assert covariance_penalty(white).abs() < 1e-12
    same = torch.ones(50, 4, dtype=torch.float64, requires_grad=True)
    hinge = variance_hinge(same)  # collapsed
    assert hinge.item() == pytest.approx(1 - 1e-2)
    (grad,) = torch.autograd.grad(hinge, same)
    assert grad.isfinite().all()
    twice = torch.cat([white, white], 1)  # every channel has a copy
    assert covariance_penalty(twice).item() == pytest.approx(4.0**2)


def own_part_of(shape, places):
    from medssl_mm.functional.distributed import rank, world_size

    parts = [view.chunk(world_size())[rank()] for view in views(*shape, places=places)]
    leaves = [part.clone().requires_grad_() for part in parts]
    loss, _ = vicreg(*leaves)
    return loss.detach(), torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize('shape', [(8, 3), (4, 9)])
@pytest.mark.parametrize('places', [(), (2,)])
def test_two_processes_equal_one(shape, places):
    loss, grads = own_part_of(shape, places)
    results = run_processes(own_part_of, 2, shape, places)
    close(torch.stack([found for found, _ in results]).mean(), loss)
    # The gradients of the parameters, their mean, are those of the joint batch.
    for number, grad in enumerate(grads):
        close(torch.cat([found[number] for _, found in results]) / 2, grad)


def test_reduced_precision_is_left():
    a, b = (view.bfloat16() for view in views(8, 4))
    with torch.autocast('cpu', torch.bfloat16):
        found, _ = vicreg(a, b)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, vicreg(a.float(), b.float())[0])


def test_what_does_not_fit():
    with pytest.raises(ValueError, match=r'both be .* got \(2, 3\) and \(2, 4\)'):
        vicreg(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match='2 samples or more, got 1'):
        vicreg(torch.zeros(1, 3), torch.zeros(1, 3))
