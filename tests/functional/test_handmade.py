"""Hand-made features against scipy, and how they move with the image."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from medssl_mm.functional.handmade import (
    count_polynomials,
    handmade_features,
    position_polynomials,
    scale_space,
)

SCALES = (1.0, 2.5)


def pictures(*shape, seed=0):
    return torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize('sigma', [0.7, 2.0, 9.0])
def test_scale_space_is_scipys(sigma):
    """Also where the kernel is longer than the image."""
    images = pictures(2, 3, 17, 23)
    found = scale_space(images, sigma)
    for index in np.ndindex(2, 3):
        image = images[index].numpy()
        expected = (
            ndimage.gaussian_filter(image, sigma, mode='nearest'),
            ndimage.gaussian_gradient_magnitude(image, sigma, mode='nearest') * sigma,
            ndimage.gaussian_laplace(image, sigma, mode='nearest') * sigma**2,
        )
        for got, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(got[index], wanted, rtol=1e-10, atol=1e-12)


def test_polynomials_are_orthonormal_over_the_square():
    found = position_polynomials(400, 300, degree=3).flatten(1)
    assert len(found) == count_polynomials(3) == 9
    gram = found @ found.T / found.shape[1]
    torch.testing.assert_close(
        gram, torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-3
    )
    assert found.mean(1).abs().max() < 1e-3
    # They span the monomials.
    y, x = (
        np.mgrid[-1:1:400j, -1:1:300j] * np.array([399 / 400, 299 / 300])[:, None, None]
    )
    basis = np.concatenate([found.numpy(), np.ones((1, found.shape[1]))])
    for power_x, power_y in [(1, 0), (0, 2), (2, 1), (0, 3)]:
        monomial = (x**power_x * y**power_y).ravel()
        _, residual, *_ = np.linalg.lstsq(basis.T, monomial, rcond=None)
        assert residual < 1e-12


def test_grey_value_features_move_with_the_image_and_places_stay():
    wide = pictures(1, 1, 80, 80)
    down, right = 3, 5
    first = handmade_features(wide[..., :64, :64], SCALES, degree=2)
    second = handmade_features(
        wide[..., down : 64 + down, right : 64 + right], SCALES, degree=2
    )
    places = count_polynomials(2)
    assert torch.equal(first[:, :places], second[:, :places])
    margin = 11  # further in than the kernels are long
    inner = slice(margin, 64 - margin)
    torch.testing.assert_close(
        first[:, places:, margin + down : 64 - margin, margin + right : 64 - margin],
        second[:, places:, inner, inner][
            ..., : 64 - 2 * margin - down, : 64 - 2 * margin - right
        ],
    )
    assert not torch.allclose(first[:, places:], second[:, places:])


def test_channels_have_features_of_their_own():
    images = pictures(2, 3, 16, 16)
    found = handmade_features(images, SCALES, degree=1)
    assert found.shape == (2, 2 + 3 * 7, 16, 16)
    # Position, grey values, then smoothed, gradient and Laplacian of each scale.
    for channel in range(3):
        alone = handmade_features(images[:, channel : channel + 1], SCALES, degree=1)
        of_channel = [0, 1, *(2 + channel + 3 * part for part in range(7))]
        torch.testing.assert_close(found[:, of_channel], alone)


def test_a_constant_image_has_no_edges_and_all_is_finite():
    found = handmade_features(torch.full((1, 1, 20, 20), 7.0), SCALES, degree=1)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[0, 3], torch.full((20, 20), 7.0))
    assert found[0, [4, 7]].abs().max() < 1e-5
    # A sampled, cut kernel does not sum to exactly 0: scipy's neither.
    assert found[0, [5, 8]].abs().max() < 7 * 2e-3


def test_autocast_changes_nothing():
    images = pictures(1, 1, 24, 24).float()
    expected = handmade_features(images, SCALES, degree=2)
    with torch.autocast('cpu', torch.bfloat16):
        found = handmade_features(images, SCALES, degree=2)
    assert torch.equal(found, expected)
