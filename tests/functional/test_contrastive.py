import math

import pytest
import torch

from medssl_mm.functional.contrastive import info_nce, unit_rows


def rows(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return unit_rows(torch.randn(*shape, generator=generator, dtype=dtype))


def slow_info_nce(query, key, negatives_of, temperature):
    total = 0.
    for i in range(len(query)):
        own = torch.dot(query[i], key[i]) / temperature
        others = [
            torch.dot(query[i], row) / temperature for row in negatives_of(i)
        ]
        total = total - own + torch.stack([own, *others]).exp().sum().log()
    return total / len(query)


def gradients(loss, *inputs):
    return torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize('temperature', [0.07, 0.2, 1.0])
def test_queue_form_equals_slow_loop(temperature):
    query = rows(5, 8, seed=1).requires_grad_()
    key = rows(5, 8, seed=2).requires_grad_()
    queue = rows(12, 8, seed=3)
    fast = info_nce(query, key, queue, temperature)
    slow = slow_info_nce(query, key, lambda i: queue, temperature)
    torch.testing.assert_close(fast, slow)
    for ours, reference in zip(
            gradients(fast, query, key), gradients(slow, query, key)):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)


def test_batch_form_equals_slow_loop():
    query = rows(5, 8, seed=1).requires_grad_()
    key = rows(5, 8, seed=2).requires_grad_()
    fast = info_nce(query, key, temperature=0.2)
    slow = slow_info_nce(
        query, key, lambda i: [key[j] for j in range(5) if j != i], 0.2)
    torch.testing.assert_close(fast, slow)
    for ours, reference in zip(
            gradients(fast, query, key), gradients(slow, query, key)):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('queue_len', [0, 6])
def test_gradcheck(queue_len):
    query = rows(4, 3, seed=1, dtype=torch.float64).requires_grad_()
    key = rows(4, 3, seed=2, dtype=torch.float64).requires_grad_()
    queue = rows(queue_len, 3, dtype=torch.float64) if queue_len else None
    assert torch.autograd.gradcheck(
        lambda q, k: info_nce(q, k, queue, 0.5), (query, key))


def test_detached_key_and_queue_get_no_gradient():
    query = rows(4, 8, seed=1).requires_grad_()
    key = rows(4, 8, seed=2).requires_grad_()
    queue = rows(6, 8, seed=3).requires_grad_()
    info_nce(query, key.detach(), queue).backward()
    assert query.grad.abs().sum() > 0
    assert key.grad is None
    assert queue.grad is None


def test_queue_may_be_overwritten_before_backward():
    query = rows(4, 8, seed=1).requires_grad_()
    key, queue = rows(4, 8, seed=2), rows(6, 8, seed=3)
    expected, = gradients(info_nce(query, key, queue.clone()), query)
    loss = info_nce(query, key, queue)
    queue.fill_(7.)
    torch.testing.assert_close(gradients(loss, query)[0], expected)


def test_gradient_scales_with_the_loss():
    query = rows(4, 8, seed=1).requires_grad_()
    key, queue = rows(4, 8, seed=2), rows(6, 8, seed=3)
    one, = gradients(info_nce(query, key, queue), query)
    many, = gradients(1024 * info_nce(query, key, queue), query)
    torch.testing.assert_close(many, 1024 * one)


def test_known_values():
    """Equal vectors everywhere are chance; own key alone is the minimum."""
    same = rows(1, 8).expand(4, 8)
    chance = info_nce(same, same, rows(1, 8).expand(7, 8), 0.2)
    assert chance.item() == pytest.approx(math.log(8))
    axes = torch.eye(8)
    loss, top1 = info_nce(
        axes[:3], axes[:3], axes[3:], 0.2, return_top1=True)
    assert loss.item() == pytest.approx(
        math.log(1 + 5 * math.exp(-5)), rel=1e-5)
    assert top1 == 1


def test_order_of_queue_and_batch_is_irrelevant():
    query, key, queue = (rows(6, 8, seed=1), rows(6, 8, seed=2),
                         rows(9, 8, seed=3))
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    torch.testing.assert_close(
        info_nce(query, key, queue),
        info_nce(query[order], key[order], queue.flip(0)))


def test_top1_counts_nearest_own_keys():
    axes = torch.eye(4)
    key = axes[[0, 1, 3]]  # the third query is nearer to the queue's row
    _, top1 = info_nce(axes[:3], key, axes[2:3], 0.2, return_top1=True)
    assert top1.item() == pytest.approx(2 / 3)


def test_large_logits_stay_finite():
    query, key, queue = (1e3 * rows(4, 8, seed=seed) for seed in range(3))
    query.requires_grad_()
    loss = info_nce(query, key, queue, 0.01)
    assert loss.isfinite()
    assert gradients(loss, query)[0].isfinite().all()


@pytest.mark.parametrize('with_queue', [True, False])
def test_float32_under_autocast(with_queue):
    query, key = rows(8, 64, seed=1), rows(8, 64, seed=2)
    queue = rows(32, 64, seed=3) if with_queue else None
    expected = info_nce(query, key, queue, 0.05)
    with torch.autocast('cpu', torch.bfloat16):
        loss = info_nce(query, key, queue, 0.05)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)


def test_unit_rows_are_float32_under_autocast():
    features = torch.randn(4, 16)
    with torch.autocast('cpu', torch.bfloat16):
        found = unit_rows(features.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize('arguments, message', [
    ((torch.ones(4, 8), torch.ones(4, 7)), r'\(4, 8\) and \(4, 7\)'),
    ((torch.ones(4, 8, 1), torch.ones(4, 8, 1)), r'must both be \(N, D\)'),
    ((torch.ones(4, 8), torch.ones(4, 8), torch.ones(8, 6)),
     r'queue must be \(K, 8\) rows .* got \(8, 6\)'),
    ((torch.ones(4, 8), torch.ones(4, 8), None, 0.), 'positive, got 0'),
])
def test_wrong_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        info_nce(*arguments)
