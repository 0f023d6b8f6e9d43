import math

import pytest
import torch
from torch.nn import functional as F

from medssl_mm.functional.feature_mse import feature_mse

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def maps(shape=(3, 4, 8, 6), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype)


def slow_pool(image, rows, columns):
    """Adaptive average pooling of one ``(H, W)``, cell by cell."""
    height, width = image.shape
    out = image.new_zeros(rows, columns)
    for i in range(rows):
        for j in range(columns):
            top, left = i * height // rows, j * width // columns
            bottom = math.ceil((i + 1) * height / rows)
            right = math.ceil((j + 1) * width / columns)
            window = image[top:bottom, left:right]
            out[i, j] = window.sum() / window.numel()
    return out


def slow_feature_mse(query, key, rows, columns):
    total, number = 0.0, 0
    for q_maps, k_maps in zip(query, key):
        for q_map, k_map in zip(q_maps, k_maps):
            difference = slow_pool(q_map, rows, columns) - slow_pool(
                k_map, rows, columns
            )
            total = total + difference.square().sum()
            number += rows * columns
    return total / number


# Sides that the grid divides, and sides that it does not.
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('grid', [1, 2, (4, 3), (3, 5), (8, 6)])
def test_equals_the_formula_with_its_gradient(grid, layout):
    query = maps().contiguous(memory_format=layout).requires_grad_()
    key = maps(seed=1).contiguous(memory_format=layout)
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    loss = feature_mse(query, key, grid)
    slow = slow_feature_mse(query, key, rows, columns)
    torch.testing.assert_close(loss, slow)
    torch.testing.assert_close(
        torch.autograd.grad(loss, query), torch.autograd.grad(slow, query)
    )


@pytest.mark.parametrize('layout', LAYOUTS)
def test_gradient_has_the_layout_of_the_map(layout):
    query = maps((2, 8, 6, 6)).contiguous(memory_format=layout)
    query.requires_grad_()
    feature_mse(query, maps((2, 8, 6, 6), seed=1), 4).backward()
    assert query.grad.is_contiguous(memory_format=layout)


def test_gradient_equals_finite_differences():
    query = maps((2, 2, 5, 4)).requires_grad_()
    key = maps((2, 2, 5, 4), seed=1)
    assert torch.autograd.gradcheck(
        lambda moved: feature_mse(moved, key, (3, 2)), query
    )


def test_key_has_no_gradient():
    query, key = maps().requires_grad_(), maps(seed=1).requires_grad_()
    feature_mse(query, key, 2).backward()
    assert query.grad.abs().sum() > 0 and key.grad is None


def test_map_smaller_than_the_grid_keeps_its_positions():
    """Pooling 5 positions to 16 cells would count some twice as often."""
    query, key = maps((2, 3, 5, 7)), maps((2, 3, 5, 7), seed=1)
    own = F.mse_loss(query, key)
    torch.testing.assert_close(feature_mse(query, key, 16), own)
    torch.testing.assert_close(
        feature_mse(query, key, (2, 16)), feature_mse(query, key, (2, 7))
    )
    repeated = F.mse_loss(*(F.adaptive_avg_pool2d(view, 16) for view in (query, key)))
    assert (repeated - own).abs() > 1e-3


def test_views_may_differ_in_size():
    query = maps((2, 3, 8, 8))
    key = F.interpolate(query, scale_factor=2)
    for grid in (4, 16):
        assert feature_mse(query, key, grid) < 1e-20


def test_one_cell_does_not_see_where_things_are():
    query, key = maps(), maps(seed=1)
    turned = query.flip(3).roll(3, dims=2)
    torch.testing.assert_close(feature_mse(turned, key, 1), feature_mse(query, key, 1))
    assert (feature_mse(turned, key, 2) - feature_mse(query, key, 2)).abs() > (1e-3)


def test_log_values_tell_shrinkage_from_agreement():
    query, key = maps(), maps(seed=1)
    loss, logs = feature_mse(query, key, (8, 6), return_logs=True)
    torch.testing.assert_close(logs['norm'], query.square().sum(1).sqrt().mean())
    torch.testing.assert_close(logs['relative'], loss / key.square().mean())
    small, small_logs = feature_mse(query / 10, key / 10, (8, 6), return_logs=True)
    torch.testing.assert_close(small, loss / 100)
    torch.testing.assert_close(small_logs['relative'], logs['relative'])
    torch.testing.assert_close(small_logs['spread'], logs['spread'])
    variance = torch.stack(
        [((cell - cell.mean()) ** 2).mean() for cell in query.flatten(1).T]
    )
    torch.testing.assert_close(
        logs['spread'], (variance.mean() / query.square().mean()).sqrt()
    )
    equal = feature_mse(query, query, return_logs=True)
    nothing = feature_mse(0 * query, key, return_logs=True)
    assert equal[1]['relative'] == 0
    alike = feature_mse(query[:1].expand_as(query), key, return_logs=True)
    assert alike[1]['spread'] < 1e-3 < alike[1]['relative']
    assert feature_mse(100 + query, key, return_logs=True)[1]['spread'] < 0.05
    assert nothing[1]['relative'].item() == pytest.approx(1)
    both_nothing = feature_mse(0 * query, 0 * key, return_logs=True)
    assert both_nothing[1]['relative'] == both_nothing[1]['spread'] == 0


@pytest.mark.parametrize('layout', LAYOUTS)
def test_half_precision_stays_close(layout):
    query = maps(dtype=torch.float32).contiguous(memory_format=layout)
    key = maps(seed=1, dtype=torch.float32)
    query.requires_grad_()
    half = query.detach().bfloat16().requires_grad_()
    expected = feature_mse(query, key, (3, 4))
    with torch.autocast('cpu', torch.bfloat16):
        loss = feature_mse(half, key.bfloat16(), (3, 4))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=2e-2, atol=0)
    (found,) = torch.autograd.grad(loss, half)
    (exact,) = torch.autograd.grad(expected, query)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(
        found.float(), exact, rtol=2e-2, atol=2e-2 * exact.abs().max().item()
    )


def test_inputs_are_left_as_they_are():
    query, key = maps(), maps(seed=1)
    copies = query.clone(), key.clone()
    feature_mse(query.requires_grad_(), key, 2, return_logs=True)[0].backward()
    assert torch.equal(query, copies[0]) and torch.equal(key, copies[1])


@pytest.mark.parametrize('grid', [0, (2, -1), (2, 2, 2), 1.5, 'ab', None])
def test_wrong_grid(grid):
    with pytest.raises(ValueError, match='grid must be a positive number'):
        feature_mse(maps(), maps(), grid)


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r'got \(3, 4\) and \(3, 4\)'):
        feature_mse(maps((3, 4)), maps((3, 4)))
    with pytest.raises(ValueError, match=r'same N and C, got \(3, 4, 8, 6\)'):
        feature_mse(maps(), maps((3, 5, 8, 6)))
