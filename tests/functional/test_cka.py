import pytest
import torch

from medssl_mm.functional.cka import (
    StreamingCKA,
    linear_cka,
    median_distance,
    rbf_cka,
)


def features(samples, *channels, seed=0, dtype=torch.float64):
    """Correlated features of several models for the same samples."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(samples, 5, generator=generator, dtype=dtype)
    return [
        common @ torch.randn(5, size, generator=generator, dtype=dtype)
        + torch.randn(samples, size, generator=generator, dtype=dtype)
        + 2
        for size in channels
    ]


def hsic(k, gram_l, unbiased):
    """Textbook HSIC from explicit kernels."""
    n = len(k)
    if not unbiased:
        h = torch.eye(n, dtype=k.dtype) - 1 / n
        return torch.trace(h @ k @ h @ gram_l)
    k, gram_l = (m - torch.diag(m.diagonal()) for m in (k, gram_l))
    ones = torch.ones(n, dtype=k.dtype)
    return (
        torch.trace(k @ gram_l)
        + (ones @ k @ ones) * (ones @ gram_l @ ones) / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (ones @ k @ gram_l @ ones)
    ) / (n * (n - 3))


def reference(k, gram_l, unbiased=False):
    return (
        hsic(k, gram_l, unbiased)
        / (hsic(k, k, unbiased) * hsic(gram_l, gram_l, unbiased)).sqrt()
    )


def gaussian(x, sigma):
    squared = (x[:, None] - x[None]).square().sum(-1)
    return torch.exp(-squared / (2 * sigma**2))


def orthogonal(size):
    return torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))[0]


# More channels than samples and the reverse; 300 and 513 span several tiles.
SHAPES = [(12, 20, 30), (60, 4, 7), (300, 400, 350), (513, 9, 3)]


@pytest.mark.parametrize('unbiased', [False, True])
@pytest.mark.parametrize('shape', SHAPES)
def test_linear_equals_explicit_kernels(shape, unbiased):
    x, y = features(*shape)
    torch.testing.assert_close(
        linear_cka(x, y, unbiased), reference(x @ x.T, y @ y.T, unbiased)
    )


@pytest.mark.parametrize('unbiased', [False, True])
@pytest.mark.parametrize('shape', [(12, 20, 30), (300, 5, 8)])
@pytest.mark.parametrize('sigma', [1.0, 5.0, 100.0])
def test_rbf_equals_explicit_kernels(shape, unbiased, sigma):
    x, y = features(*shape)
    torch.testing.assert_close(
        rbf_cka(x, y, sigma, relative=False, unbiased=unbiased),
        reference(gaussian(x, sigma), gaussian(y, sigma), unbiased),
        rtol=1e-6,
        atol=1e-9,
    )


def test_relative_bandwidth_is_a_fraction_of_the_median_distance():
    x, y = features(101, 6, 4)  # an odd number of pairs has one median
    x, y = x[:-2], y[:-2]
    medians = [torch.pdist(z).median() for z in (x, y)]
    assert median_distance(x) == pytest.approx(float(medians[0]))
    torch.testing.assert_close(
        rbf_cka(x, y, bandwidth=0.5),
        reference(gaussian(x, 0.5 * medians[0]), gaussian(y, 0.5 * medians[1])),
    )


@pytest.mark.parametrize('unbiased', [False, True])
@pytest.mark.parametrize('cka', [linear_cka, rbf_cka])
@pytest.mark.parametrize('shape', [(40, 6, 5), (15, 30, 20)])
def test_rotation_scale_and_offset_do_not_matter(cka, shape, unbiased):
    x, y = features(*shape)
    moved = 7 * x @ orthogonal(x.shape[1]) - 3
    torch.testing.assert_close(
        cka(moved, y, unbiased=unbiased), cka(x, y, unbiased=unbiased)
    )
    torch.testing.assert_close(
        cka(moved, x, unbiased=unbiased), torch.tensor(1.0).double()
    )
    torch.testing.assert_close(
        cka(y, x, unbiased=unbiased), cka(x, y, unbiased=unbiased)
    )


def test_wide_gaussian_tends_to_linear_also_in_float32():
    x, y = features(50, 6, 8)
    for unbiased in (False, True):
        torch.testing.assert_close(
            rbf_cka(x.float(), y.float(), 1e3, unbiased=unbiased),
            linear_cka(x, y, unbiased),
            rtol=1e-4,
            atol=1e-5,
        )


def test_unbiased_estimate_of_unrelated_features_is_zero_on_average():
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor(
        [
            [
                linear_cka(x, y),
                linear_cka(x, y, unbiased=True),
                rbf_cka(x, y, unbiased=True),
            ]
            for x, y in torch.randn(40, 2, 30, 60, generator=generator)
        ]
    )
    assert values[:, 0].mean() > 0.6
    assert values[:, 1:].mean(0).abs().max() < 0.02


@pytest.mark.parametrize('unbiased', [False, True])
@pytest.mark.parametrize('cka', [linear_cka, rbf_cka])
def test_float32_with_a_large_offset_keeps_its_digits(cka, unbiased):
    x, y = features(200, 30, 40)
    expected = cka(x, y, unbiased=unbiased)
    single = cka((x + 50).float(), (y - 50).float(), unbiased=unbiased)
    torch.testing.assert_close(single, expected, rtol=1e-4, atol=1e-5)


def test_autocast_changes_nothing():
    x, y = features(30, 40, 6, dtype=torch.float32)
    expected = linear_cka(x, y), linear_cka(y, y[:, :3]), rbf_cka(x, y)
    with torch.autocast('cpu', torch.bfloat16):
        cast = linear_cka(x, y), linear_cka(y, y[:, :3]), rbf_cka(x, y)
    assert cast == expected


def test_median_of_a_large_set_comes_from_a_selection(monkeypatch):
    x, y = features(120, 6, 4)
    monkeypatch.setattr('medssl_mm.functional.cka.MEDIAN_SAMPLES', 40)
    rows = torch.linspace(0, 119, 40).long()
    medians = [torch.pdist(z[rows]).median() for z in (x, y)]
    assert median_distance(x) == pytest.approx(float(medians[0]))
    torch.testing.assert_close(
        rbf_cka(x, y, bandwidth=0.5),
        reference(gaussian(x, 0.5 * medians[0]), gaussian(y, 0.5 * medians[1])),
    )


@pytest.mark.parametrize('unbiased', [False, True])
@pytest.mark.parametrize('pairs', ['all', 'matched'])
@pytest.mark.parametrize('batches', [(50,), (1, 30, 2, 17)])
def test_streaming_equals_all_samples_at_once(unbiased, pairs, batches):
    before = features(50, 3, 8, 70)
    after = features(50, 5, 2, 60, seed=1)
    after[0] = after[0] + before[0] @ torch.randn(3, 5, dtype=torch.float64)
    cka = StreamingCKA(num_layers_x=3, pairs=pairs)
    for parts in zip(*(torch.split(z, batches) for z in before + after), strict=True):
        cka.update(parts[:3], parts[3:])
    assert cka.num_samples == 50
    result = cka.compute(unbiased)
    for i in range(3):
        for j in range(3):
            if pairs == 'all' or i == j:
                torch.testing.assert_close(
                    result[i, j], linear_cka(before[i], after[j], unbiased)
                )
            else:
                assert result[i, j].isnan()


def test_streaming_with_offset_in_float32():
    x, y = features(64, 6, 9)
    cka = StreamingCKA(1, dtype=torch.float32)
    for part in range(0, 64, 16):
        cka.update([x[part : part + 16] + 100], [y[part : part + 16] + 100])
    for unbiased in (False, True):
        torch.testing.assert_close(
            cka.compute(unbiased)[0, 0],
            linear_cka(x, y, unbiased),
            rtol=1e-4,
            atol=1e-5,
        )


def test_different_numbers_of_layers():
    layers = features(20, 3, 4, 5)
    cka = StreamingCKA(num_layers_x=1, num_layers_y=3)
    cka.update(layers[:1], layers)
    assert cka.compute().shape == (1, 3)
    torch.testing.assert_close(cka.compute()[0, 0], torch.tensor(1.0).double())


def test_bad_input_is_named():
    x, y = features(10, 3, 4)
    with pytest.raises(ValueError, match=r'\(10, 3\) and \(9, 4\)'):
        linear_cka(x, y[:9])
    with pytest.raises(ValueError, match='pool feature maps first'):
        rbf_cka(x[..., None], y)
    with pytest.raises(ValueError, match='takes 4 samples or more, got 3'):
        linear_cka(x[:3], y[:3], unbiased=True)
    with pytest.raises(ValueError, match='bandwidth must be above 0, got 0'):
        rbf_cka(x, y, 0)
    with pytest.raises(ValueError, match='undefined: the features y do not'):
        linear_cka(x, torch.full((10, 3), 0.1))
    with pytest.raises(ValueError, match='further apart than the bandwidth'):
        rbf_cka(x, y, 1e-3, relative=False, unbiased=True)
    with pytest.raises(ValueError, match='features x are not all finite'):
        linear_cka(x * torch.nan, y)
    with pytest.raises(ValueError, match='relative=False'):
        rbf_cka(x, torch.eye(10, dtype=torch.float64)[:, :2])


def test_streaming_names_what_does_not_fit():
    x, y = features(10, 3, 4)
    with pytest.raises(ValueError, match="'all' or 'matched', got 'some'"):
        StreamingCKA(1, pairs='some')
    with pytest.raises(ValueError, match='got 1 and 2'):
        StreamingCKA(1, 2, pairs='matched')
    cka = StreamingCKA(1)
    with pytest.raises(ValueError, match=r'expected \(1, 1\) .* got \(2, 1\)'):
        cka.update([x, x], [y])
    with pytest.raises(ValueError, match='same N in all layers'):
        cka.update([x], [y[:5]])
    cka.update([x], [y])
    with pytest.raises(ValueError, match=r'had \[3, 4\] channels .* \[4, 4\]'):
        cka.update([y], [y])
    constant = StreamingCKA(1)
    constant.update([x], [torch.ones(10, 4)])
    with pytest.raises(ValueError, match='layer 0 of the second do not vary'):
        constant.compute()


@pytest.mark.parametrize('unbiased', [False, True])
@pytest.mark.parametrize('cka', [linear_cka, rbf_cka])
@pytest.mark.parametrize('shape', [(200, 16, 12), (20, 40, 30)])
def test_a_large_channel_that_does_not_vary_hides_no_other(cka, shape, unbiased):
    x, y = (0.01 * z.float() for z in features(*shape))
    expected = cka(x[:, 1:], y, unbiased=unbiased)
    x[:, 0] = 1e5 / 3
    found = cka(x, y, unbiased=unbiased)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert median_distance(x) == pytest.approx(median_distance(x[:, 1:]), rel=1e-4)
    with pytest.raises(ValueError, match='x do not vary over the samples'):
        cka(x[:, :1], y)
