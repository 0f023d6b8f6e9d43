import numpy as np
import pytest
import torch

from medssl_mm.functional import whitening
from medssl_mm.functional.distributed import rank
from medssl_mm.functional.whitening import (
    METHODS,
    apply_whitening,
    dense_transform,
    moments,
    newton_schulz_iterations,
    shuffled_channels,
    whiten,
    whiten_with_moments,
    whitening_matrix,
    whitening_residual,
)
from tests.distributed import run_processes

EXACT = ('zca', 'newton_schulz', 'cholesky')


def correlated(samples, channels, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, channels, generator=generator, dtype=dtype)
    mix = torch.randn(channels, channels, generator=generator, dtype=dtype)
    return x @ mix + 3


def covariance_of(y):
    rows = y if y.ndim == 2 else y.permute(0, 2, 3, 1).flatten(0, 2)
    centred = rows - rows.mean(0)
    return centred.T @ centred / len(rows)


def orthogonal(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(random)[0]


def equal_eigenvalues(samples, channels):
    """Data whose covariance is exactly the identity."""
    basis = orthogonal(samples)
    ones = torch.ones(samples, 1, dtype=torch.float64)
    basis = torch.linalg.qr(torch.cat([ones, basis], 1))[0]
    return basis[:, 1 : channels + 1] * samples**0.5


@pytest.mark.parametrize('method', EXACT)
@pytest.mark.parametrize('shape', [(200, 6), (8, 6, 5, 4)])
def test_output_covariance_has_shrunk_unit_eigenvalues(method, shape):
    x = torch.randn(shape, dtype=torch.float64)
    x = torch.einsum('nc...,cd->nd...', x, correlated(6, 6))
    eps = 0.05
    values = torch.linalg.eigvalsh(covariance_of(x))
    expected = values / (values + eps * values.mean())
    y = whiten(x, method, eps=eps)
    assert y.shape == x.shape
    axes = [axis for axis in range(y.ndim) if axis != 1]
    torch.testing.assert_close(y.mean(axes), torch.zeros(6).double())
    torch.testing.assert_close(torch.linalg.eigvalsh(covariance_of(y)), expected)


def test_zca_is_symmetric_and_closest_to_the_input():
    x = correlated(300, 5)
    mean, covariance = moments(x)
    matrix = whitening_matrix(covariance, 'zca', eps=0)
    torch.testing.assert_close(matrix, matrix.mT)
    centred = x - mean
    y = apply_whitening(x, mean, matrix)
    distance = (y - centred).square().sum()
    for seed in range(5):
        other = y @ orthogonal(5, seed)
        torch.testing.assert_close(covariance_of(other), covariance_of(y))
        assert distance < (other - centred).square().sum()
    assert distance < (whiten(x, 'cholesky', eps=0) - centred).square().sum()


@pytest.mark.parametrize('method', ['zca', 'newton_schulz', 'iternorm'])
def test_rotation_of_the_input_rotates_the_output(method):
    x, rotation = correlated(100, 7), orthogonal(7)
    torch.testing.assert_close(
        whiten(x @ rotation, method), whiten(x, method) @ rotation
    )


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('factor', [1e-12, 7.0, 1e12])
def test_scale_and_offset_of_the_input_do_not_matter(method, factor):
    x = correlated(64, 4, dtype=torch.float32)
    torch.testing.assert_close(
        whiten(factor * x + 2 * factor, method),
        whiten(x, method),
        rtol=1e-3,
        atol=1e-4,
    )


def test_newton_schulz_equals_zca_on_a_hard_spectrum():
    values = torch.arange(1, 65, dtype=torch.float64) ** -4
    basis = orthogonal(64)
    covariance = ((basis * values) @ basis.T)[None]
    exact = whitening_matrix(covariance, 'zca')
    torch.testing.assert_close(whitening_matrix(covariance, 'newton_schulz'), exact)
    single = whitening_matrix(covariance.float(), 'newton_schulz')
    assert (single - exact).norm() < 2e-3 * exact.norm()


def test_newton_schulz_converges_in_the_steps_it_states():
    values = torch.zeros(32, dtype=torch.float64)
    values[0] = 1  # the worst case: one direction holds all variance
    covariance = torch.diag(values)[None]
    needed = newton_schulz_iterations(32, 1e-3, torch.float64)
    matrix = whitening_matrix(covariance, 'newton_schulz', iterations=needed)
    assert whitening_residual(covariance, matrix) < 1e-10
    with pytest.warns(UserWarning, match=f'{needed} are sure to'):
        matrix = whitening_matrix(covariance, 'newton_schulz', iterations=3)
    assert whitening_residual(covariance, matrix) > 0.1


def test_cholesky_equals_numpy():
    x = correlated(50, 6)
    data = x.numpy()
    centred = data - data.mean(0)
    covariance = centred.T @ centred / len(data)
    ridge = 1e-3 * np.trace(covariance) / 6
    factor = np.linalg.cholesky(covariance + ridge * np.eye(6))
    expected = np.linalg.solve(factor, centred.T).T
    np.testing.assert_allclose(whiten(x, 'cholesky').numpy(), expected)


@pytest.mark.parametrize('iterations', [1, 4, None])
def test_iternorm_equals_the_formula(iterations):
    x = correlated(50, 6)
    data = x.numpy()
    centred = data - data.mean(0)
    covariance = centred.T @ centred / len(data)
    covariance += 1e-3 * np.trace(covariance) / 6 * np.eye(6)
    trace = np.trace(covariance)
    estimate = np.eye(6)
    for _ in range(iterations or 5):
        cube = np.linalg.matrix_power(estimate, 3)
        estimate = 1.5 * estimate - 0.5 * cube @ (covariance / trace)
    expected = centred @ (estimate / np.sqrt(trace))
    np.testing.assert_allclose(
        whiten(x, 'iternorm', iterations=iterations).numpy(), expected
    )


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('shuffled', [False, True])
def test_groups_equal_a_loop_over_the_groups(method, shuffled):
    x = torch.einsum(
        'nchw,cd->ndhw',
        torch.randn(4, 12, 5, 5, dtype=torch.float64),
        correlated(12, 12),
    )
    order = shuffled_channels(12, seed=3) if shuffled else torch.arange(12)
    expected = torch.empty_like(x)
    for group in order.view(3, 4):
        expected[:, group] = whiten(x[:, group], method)
    torch.testing.assert_close(
        whiten(
            x,
            method,
            num_groups=3,
            channel_order=order if shuffled else None,
        ),
        expected,
    )


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('shuffled', [False, True])
def test_dense_transform_is_the_same_map(method, shuffled):
    x = correlated(40, 6)
    order = shuffled_channels(6, seed=1) if shuffled else None
    mean, covariance = moments(x, num_groups=2, channel_order=order)
    matrix = whitening_matrix(covariance, method)
    weight, bias = dense_transform(mean, matrix, order)
    expected = apply_whitening(x, mean, matrix, order)
    torch.testing.assert_close(x @ weight.T + bias, expected)
    for part, whole in zip(
        whiten_with_moments(x, method, num_groups=2, channel_order=order),
        (expected, mean, covariance),
        strict=True,
    ):
        torch.testing.assert_close(part, whole)


def test_shuffled_channels_depend_on_the_seed_only():
    order = shuffled_channels(64, seed=5)
    assert torch.equal(order, shuffled_channels(64, seed=5))
    assert not torch.equal(order, shuffled_channels(64, seed=6))
    assert torch.equal(order.sort().values, torch.arange(64))


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('case', ['generic', 'equal', 'deficient', 'groups', 'map'])
def test_gradient_equals_finite_differences(method, case):
    groups, order = 1, None
    if case == 'equal':
        x = equal_eigenvalues(9, 4)
    elif case == 'deficient':
        x = correlated(4, 6)
    elif case == 'groups':
        x, groups, order = correlated(8, 6), 2, shuffled_channels(6, 0)
    elif case == 'map':
        x = torch.randn(2, 3, 3, 2, dtype=torch.float64)
    else:
        x = correlated(10, 4)
    assert torch.autograd.gradcheck(
        lambda x: whiten(x, method, groups, 0.01, None, order),
        x.requires_grad_(),
    )


@pytest.mark.parametrize('method', EXACT)
@pytest.mark.parametrize('case', ['identity', 'generic', 'singular'])
def test_matrix_gradient_in_float32_equals_float64(method, case):
    covariance = {
        'identity': torch.eye(8, dtype=torch.float64),
        'generic': covariance_of(correlated(50, 8)),
        'singular': covariance_of(correlated(5, 8)),
    }[case][None]
    weight = torch.randn(1, 8, 8, dtype=torch.float64)

    def gradient(dtype):
        leaf = covariance.clone().to(dtype).requires_grad_()
        matrix = whitening_matrix(leaf, method)
        (matrix * weight.to(dtype)).sum().backward()
        return leaf.grad.double()

    expected = gradient(torch.float64)
    error = (gradient(torch.float32) - expected).norm()
    assert error < 2e-3 * expected.norm()


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('value', [0.0, 0.1, -1e20, 1e-30])
def test_constant_input_gives_zeros_and_a_zero_gradient(method, value):
    x = torch.full((3, 8, 7, 5), value, requires_grad=True)
    y = whiten(x, method, num_groups=2)
    assert y.abs().max() == 0
    (y * torch.randn_like(y)).sum().backward()
    assert x.grad.abs().max() == 0


@pytest.mark.parametrize('method', METHODS)
def test_constant_group_leaves_the_others_alone(method):
    x = correlated(20, 6, dtype=torch.float64)
    x[:, 3:] = 0.3
    y = whiten(x, method, num_groups=2)
    torch.testing.assert_close(y[:, :3], whiten(x[:, :3], method))
    x = x.float().requires_grad_()
    y = whiten(x, method, num_groups=2)
    assert y[:, 3:].abs().max() == 0
    y.square().mul(torch.randn_like(y)).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('eps', [0.0, 1e-5, 1e-3])
def test_rank_deficient_float32_batch_stays_finite(method, eps):
    x = correlated(16, 64, dtype=torch.float32)
    x[1] = x[0]
    x.requires_grad_()
    if method == 'cholesky' and eps < 1e-3:
        eps = 1e-3  # test_cholesky_of_a_singular_matrix has the others
    y = whiten(x, method, eps=eps)
    (y * torch.randn_like(y)).sum().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()
    if method == 'zca' and eps == 1e-3:
        assert torch.linalg.matrix_rank(covariance_of(y), rtol=1e-4) == 14


@pytest.mark.parametrize('method', METHODS)
def test_autocast_changes_nothing(method):
    x = correlated(4 * 9, 8, dtype=torch.float32).view(4, 8, 3, 3)
    weight = torch.randn_like(x)

    def run(enabled):
        leaf = x.clone().requires_grad_()
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            y = whiten(leaf, method)
        (y * weight).sum().backward()
        return y.detach(), leaf.grad

    for plain, cast in zip(run(False), run(True), strict=True):
        assert cast.dtype == torch.float32
        assert torch.equal(plain, cast)


def test_half_precision_input_is_computed_in_float32():
    x = correlated(64, 4, dtype=torch.float32).bfloat16()
    y = whiten(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, whiten(x.float()))
    assert whiten(x.double()).dtype == torch.float64


def test_memory_format_is_kept_and_does_not_matter():
    x = torch.randn(4, 6, 5, 3)
    plain = whiten(x)
    last = whiten(x.contiguous(memory_format=torch.channels_last))
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(plain, last)


def outputs_and_gradients(x, weight, target, part, share):
    """Of a linear map in front of each whitening method."""
    results = []
    for method in METHODS:
        leaf = weight.clone().requires_grad_()
        y = whiten(x[part] @ leaf, method, num_groups=2)
        ((y * target[part]).sum() / share).backward()
        results.append((y.detach(), leaf.grad))
    return results


def parts_of_this_rank(x, weight, target, cuts):
    # The mean over the 2 ranks of the losses is the mean over all samples.
    return [
        outputs_and_gradients(
            x,
            weight,
            target,
            ((slice(None, cut)), slice(cut, None))[rank()],
            len(x) / 2,
        )
        for cut in cuts
    ]


def test_two_processes_equal_one_also_with_unequal_batches():
    x, weight = correlated(20, 5), correlated(5, 6, seed=1)
    target = torch.randn(20, 6, dtype=torch.float64)
    cuts = (10, 7)
    expected = outputs_and_gradients(x, weight, target, slice(None), 20)
    ranks = run_processes(parts_of_this_rank, 2, x, weight, target, cuts)
    for first, second in zip(*ranks, strict=True):
        for (y, grad), left, right in zip(expected, first, second, strict=True):
            torch.testing.assert_close(torch.cat([left[0], right[0]]), y)
            # As DistributedDataParallel averages.
            torch.testing.assert_close((left[1] + right[1]) / 2, grad)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(method='pca'), "unknown whitening method 'pca'; choose one of"),
        (dict(num_groups=4), 'num_groups=4 does not divide the 6 channels'),
        (dict(eps=-1), 'eps must not be negative'),
        (dict(iterations=3), "'zca' does not iterate"),
        (dict(method='iternorm', iterations=0), 'must be 1 or more, got 0'),
        (dict(channel_order=torch.arange(5)), 'permutation of the 6 chan'),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        whiten(torch.randn(10, 6), **arguments)


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r'must be \(N, C\) or .*\(2, 3, 4\)'):
        whiten(torch.randn(2, 3, 4))
    with pytest.raises(ValueError, match=r'nothing to whiten .*\(0, 4\)'):
        whiten(torch.randn(0, 4))
    with pytest.raises(ValueError, match=r'\(groups, d, d\), got \(4, 4\)'):
        whitening_matrix(torch.eye(4))


def test_cholesky_of_an_indefinite_matrix_says_what_to_do():
    matrix = torch.diag(torch.tensor([1.0, -0.5, 1.0]))
    with pytest.raises(ValueError, match='raise eps, or use float64'):
        whitening_matrix(matrix[None], 'cholesky')


def test_sources_of_the_step_bound_hold():
    """Every spectrum within the bounds ends at one, to rounding."""
    steps = whitening._step_lengths(512, 1e-3, torch.float64)
    values = np.geomspace(np.sqrt(1e-3 / (512 * 1.001)), 1, 1000)
    for step in steps:
        values = step * values * (3 - step**2 * values**2) / 2
        assert values.min() > 0
    np.testing.assert_allclose(values, 1, rtol=0, atol=1e-12)
