import math

import numpy as np
import pytest
import torch

from medssl_mm.functional.spectrum import (
    alpha_req,
    covariance_eigenvalues,
    effective_rank,
    lidar,
    rankme,
    std_of_l2_normalized,
)


def features(samples, channels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, channels, generator=generator)
    return x * torch.linspace(0.1, 2, channels) + 1


def flat(samples, channels, offset=0.0):
    """Equal variance in all directions, exactly."""
    basis = torch.randn(samples, channels, dtype=torch.float64)
    basis = torch.linalg.qr(torch.cat([torch.ones(samples, 1).double(), basis], 1))[0]
    return basis[:, 1:] * samples**0.5 + offset


@pytest.mark.parametrize('normalize', [False, True])
@pytest.mark.parametrize('shape', [(50, 8), (8, 50)])
def test_eigenvalues_equal_numpy(shape, normalize):
    x = features(*shape)
    data = x.double().numpy()
    if normalize:
        data = data / np.linalg.norm(data, axis=1, keepdims=True)
    expected = np.linalg.eigvalsh(np.cov(data.T, bias=True))[::-1]
    values = covariance_eigenvalues(x, normalize)
    assert values.shape == (shape[1],)
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-12)


def test_positions_of_a_map_count_as_samples():
    x = torch.randn(3, 5, 4, 2)
    rows = x.permute(0, 2, 3, 1).reshape(-1, 5)
    for figure in (
        covariance_eigenvalues,
        effective_rank,
        rankme,
        std_of_l2_normalized,
    ):
        torch.testing.assert_close(figure(x), figure(rows))


def test_float32_option():
    x = features(60, 10)
    values = covariance_eigenvalues(x, dtype=torch.float32)
    assert values.dtype == torch.float32
    torch.testing.assert_close(
        values.double(), covariance_eigenvalues(x), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize('shape', [(50, 8), (8, 50)])
def test_effective_rank_equals_the_formula(shape):
    x = features(*shape)
    values = np.linalg.svd((x - x.mean(0)).double().numpy(), compute_uv=False)
    share = values**2 / (values**2).sum()
    share = share[share > 1e-14]
    expected = math.exp(-(share * np.log(share)).sum())
    assert float(effective_rank(x)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('shape', [(50, 8), (8, 50)])
def test_rankme_equals_the_formula(shape):
    x = features(*shape)
    values = np.linalg.svd(x.double().numpy(), compute_uv=False)
    share = values / values.sum() + 1e-7
    expected = math.exp(-(share * np.log(share)).sum())
    assert float(rankme(x)) == pytest.approx(expected, rel=1e-4)


def test_rank_of_healthy_and_of_collapsed_features():
    assert float(effective_rank(flat(40, 12, 5.0))) == pytest.approx(12)
    assert float(rankme(flat(40, 12))) == pytest.approx(12, rel=1e-4)
    line = torch.randn(40, 1) * torch.randn(1, 12)
    assert float(effective_rank(line)) == pytest.approx(1, abs=1e-4)
    assert float(rankme(line)) == pytest.approx(1, abs=1e-4)
    # An offset shared by all samples is a direction for RankMe only.
    assert float(rankme(flat(40, 12, 1e6))) < 1.1


def test_rotation_and_scale_do_not_matter():
    x = features(60, 6).double()
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    for figure in (effective_rank, rankme):
        torch.testing.assert_close(figure(100 * x @ rotation), figure(x))
    torch.testing.assert_close(
        alpha_req(100 * x @ rotation, (1, 5)), alpha_req(x, (1, 5))
    )


@pytest.mark.parametrize('slope', [0.0, 1.0, 2.5])
def test_alpha_of_a_power_law_is_its_slope(slope):
    scale = torch.arange(1, 65).double() ** (-slope / 2)
    x = flat(200, 64) * scale
    assert float(alpha_req(x)) == pytest.approx(slope, abs=1e-6)
    values = covariance_eigenvalues(x)
    assert float(alpha_req(values)) == pytest.approx(slope, abs=1e-6)
    torch.testing.assert_close(effective_rank(values), effective_rank(x))


def test_alpha_weighs_eigenvalues_by_their_inverse_index():
    values = torch.rand(80, dtype=torch.float64).sort(descending=True).values
    index = np.arange(5, 51)
    slope = np.polyfit(np.log(index), np.log(values[4:50].numpy()), 1, w=index**-0.5)[0]
    assert float(alpha_req(values, (5, 50))) == pytest.approx(-slope)


def test_spread_of_features_on_the_sphere():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5000, 64, generator=generator)
    assert float(std_of_l2_normalized(x)) == pytest.approx(1 / 8, rel=0.01)
    same_direction = torch.randn(1, 64) * torch.rand(20, 1)
    assert float(std_of_l2_normalized(same_direction)) < 1e-6


@pytest.mark.parametrize('value', [0.0, 0.1, -1e9])
def test_constant_features_have_no_rank_and_no_slope(value):
    x = torch.full((30, 8), value)
    assert covariance_eigenvalues(x).abs().max() == 0
    assert effective_rank(x) == 0
    assert alpha_req(x).isnan()
    assert std_of_l2_normalized(x) < 1e-12
    assert float(rankme(x)) == pytest.approx(float(value != 0), abs=1e-4)


def test_slope_needs_two_eigenvalues_in_the_range():
    assert alpha_req(features(4, 20)).isnan()
    assert alpha_req(features(5, 20)).isfinite()


def test_gradient_is_not_recorded():
    x = features(20, 5).requires_grad_()
    assert not effective_rank(x).requires_grad
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(rankme(x), rankme(x.detach()))


def test_bad_input_is_named():
    x = features(10, 4)
    with pytest.raises(ValueError, match=r'\(N, D\) or .* \(2, 3, 4\)'):
        rankme(torch.randn(2, 3, 4))
    with pytest.raises(ValueError, match='2 samples or more'):
        effective_rank(x[:1])
    with pytest.raises(ValueError, match='1 of 40 feature values'):
        x[2, 1] = torch.inf
        covariance_eigenvalues(x)
    with pytest.raises(ValueError, match=r'1 <= first < last, got \(5, 5\)'):
        alpha_req(features(10, 4), (5, 5))


def views_of(images, number, size, seed=0):
    """Image features that fall off, and views that differ most in few directions."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(images, 1, size, generator=generator, dtype=torch.float64)
    noise = torch.randn(images, number, size, generator=generator, dtype=torch.float64)
    return means * torch.linspace(2, 0.2, size) + noise * torch.linspace(0.1, 1, size)


@pytest.mark.parametrize('shape', [(30, 4, 6), (5, 3, 9)])
def test_lidar_equals_the_formula(shape):
    views = views_of(*shape).numpy()
    images, number, size = shape
    means = views.mean(1)
    between = sum(np.outer(m, m) for m in means - means.mean(0)) / images
    within = np.zeros((size, size))
    for image, mean in zip(views, means):
        for view in image:
            within += np.outer(view - mean, view - mean) / (images * number)
    within += 1e-4 * np.eye(size)
    # The eigenvalues of W^(-1/2) B W^(-1/2) are those of W^(-1) B.
    values = np.linalg.eigvals(np.linalg.solve(within, between)).real
    share = np.clip(values, 0, None) / values.sum() + 1e-7
    expected = np.exp(-(share * np.log(share)).sum())
    assert lidar(torch.from_numpy(views)).item() == pytest.approx(expected, rel=1e-6)


def test_lidar_does_not_count_directions_of_augmentation():
    """RankMe does."""
    few = torch.zeros(200, 10, 8, dtype=torch.float64)
    few[..., :2] = views_of(200, 1, 2)  # two directions tell the images apart
    few[..., 2:] = views_of(200, 10, 6, seed=1) - views_of(200, 1, 6, seed=1)
    assert rankme(few.flatten(0, 1)) > 6
    # In the others views have a variance, and their means a tenth of it.
    assert 1 < lidar(few * torch.tensor([100.0] * 2 + [1.0] * 6)) < 2.5
    alone = flat(200, 8)[:, None].expand(-1, 3, -1)  # views agree
    assert lidar(alone).item() == pytest.approx(8, rel=1e-4)
    assert lidar(torch.ones(4, 3, 8)) == 0


def test_lidar_of_wrong_input_is_named():
    for shape in ((1, 5, 4), (5, 1, 4), (5, 4)):
        with pytest.raises(ValueError, match='2 images and 2 views or more, got'):
            lidar(torch.rand(shape))
    with pytest.raises(ValueError, match='1 of 60 feature values are not finite'):
        lidar(
            torch.rand(5, 3, 4).index_put(
                (torch.tensor(0),) * 3, torch.tensor(torch.nan)
            )
        )
