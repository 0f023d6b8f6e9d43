import math

import pytest
import torch

from medssl_mm.functional.contrastive import (
    info_nce,
    local_info_nce,
    nt_xent,
    unit_rows,
)
from medssl_mm.functional.distributed import rank, world_size
from tests.distributed import run_processes


def rows(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return unit_rows(torch.randn(*shape, generator=generator, dtype=dtype))


def slow_info_nce(query, key, negatives_of, temperature):
    total = 0.0
    for i in range(len(query)):
        own = torch.dot(query[i], key[i]) / temperature
        others = [torch.dot(query[i], row) / temperature for row in negatives_of(i)]
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
        gradients(fast, query, key), gradients(slow, query, key)
    ):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)


def test_batch_form_equals_slow_loop():
    query = rows(5, 8, seed=1).requires_grad_()
    key = rows(5, 8, seed=2).requires_grad_()
    fast = info_nce(query, key, temperature=0.2)
    slow = slow_info_nce(
        query, key, lambda i: [key[j] for j in range(5) if j != i], 0.2
    )
    torch.testing.assert_close(fast, slow)
    for ours, reference in zip(
        gradients(fast, query, key), gradients(slow, query, key)
    ):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('queue_len', [0, 6])
def test_gradcheck(queue_len):
    query = rows(4, 3, seed=1, dtype=torch.float64).requires_grad_()
    key = rows(4, 3, seed=2, dtype=torch.float64).requires_grad_()
    queue = rows(queue_len, 3, dtype=torch.float64) if queue_len else None
    assert torch.autograd.gradcheck(
        lambda q, k: info_nce(q, k, queue, 0.5), (query, key)
    )


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
    (expected,) = gradients(info_nce(query, key, queue.clone()), query)
    loss = info_nce(query, key, queue)
    queue.fill_(7.0)
    torch.testing.assert_close(gradients(loss, query)[0], expected)


def test_gradient_scales_with_the_loss():
    query = rows(4, 8, seed=1).requires_grad_()
    key, queue = rows(4, 8, seed=2), rows(6, 8, seed=3)
    (one,) = gradients(info_nce(query, key, queue), query)
    (many,) = gradients(1024 * info_nce(query, key, queue), query)
    torch.testing.assert_close(many, 1024 * one)


def test_known_values():
    """Equal vectors everywhere are chance; own key alone is the minimum."""
    row = rows(1, 8).double()
    same = row.expand(4, 8)
    chance = info_nce(same, same, row.expand(7, 8), 0.2)
    assert chance.item() == pytest.approx(math.log(8))
    axes = torch.eye(8).double()
    loss, top1 = info_nce(axes[:3], axes[:3], axes[3:], 0.2, return_top1=True)
    assert loss.item() == pytest.approx(math.log(1 + 5 * math.exp(-5)))
    assert top1 == 1


def test_order_of_queue_and_batch_is_irrelevant():
    query, key, queue = (rows(6, 8, seed=1), rows(6, 8, seed=2), rows(9, 8, seed=3))
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    torch.testing.assert_close(
        info_nce(query, key, queue), info_nce(query[order], key[order], queue.flip(0))
    )


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


@pytest.mark.parametrize(
    'arguments, message',
    [
        ((torch.ones(4, 8), torch.ones(4, 7)), r'\(4, 8\) and \(4, 7\)'),
        ((torch.ones(4, 8, 1), torch.ones(4, 8, 1)), r'must both be \(N, D\)'),
        (
            (torch.ones(4, 8), torch.ones(4, 8), torch.ones(8, 6)),
            r'queue must be \(K, 8\) rows .* got \(8, 6\)',
        ),
        ((torch.ones(4, 8), torch.ones(4, 8), None, 0.0), 'positive, got 0'),
    ],
)
def test_wrong_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        info_nce(*arguments)


def regions(seed, number=3, count=5, width=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(number, count, width, generator=generator, dtype=dtype)


VALID = torch.tensor(
    [[1, 1, 0, 1, 1], [0, 0, 1, 0, 0], [1, 0, 0, 0, 1]], dtype=torch.bool
)


def slow_local(query, key, temperature, valid, negatives, queue):
    """From the formula; returns the loss, chance level and top-1."""
    terms, chances, hits = [], [], []
    number, count, _ = query.shape
    if valid is None:
        valid = torch.ones(number, count, dtype=torch.bool)

    def logit(first, second):
        return torch.dot(first / first.norm(), second / second.norm()) / temperature

    for n in range(number):
        for i in range(count):
            if not valid[n, i]:
                continue
            others = [
                key[m, j]
                for m in range(number)
                for j in range(count)
                if valid[m, j] and (m, j) != (n, i) and (m == n or negatives == 'batch')
            ]
            others += [] if queue is None else list(queue)
            if not others:
                continue
            own = logit(query[n, i], key[n, i])
            rest = torch.stack([logit(query[n, i], row) for row in others])
            terms.append(torch.cat([own[None], rest]).exp().sum().log() - own)
            chances.append(math.log(len(others) + 1))
            hits.append(bool(own >= rest.max()))
    total = len(terms)
    return sum(terms) / total, sum(chances) / total, sum(hits) / total


@pytest.mark.parametrize('valid', [None, VALID], ids=['all', 'some'])
@pytest.mark.parametrize('negatives', ['image', 'batch'])
@pytest.mark.parametrize('queue', [None, rows(7, 8, seed=9) * 4], ids=['', 'queue'])
def test_local_form_equals_slow_loop(valid, negatives, queue):
    query, key = (regions(seed).requires_grad_() for seed in (1, 2))
    fast, logs = local_info_nce(
        query, key, 0.3, valid, negatives, queue, return_logs=True
    )
    slow, chance, top1 = slow_local(query, key, 0.3, valid, negatives, queue)
    torch.testing.assert_close(fast, slow)
    assert logs['chance_level'].item() == pytest.approx(chance)
    assert logs['top1'].item() == pytest.approx(top1)
    for ours, reference in zip(
        gradients(fast, query, key), gradients(slow, query, key)
    ):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('negatives', ['image', 'batch'])
def test_local_gradcheck(negatives):
    query, key = (
        regions(seed, width=3, dtype=torch.float64).requires_grad_() for seed in (1, 2)
    )
    assert torch.autograd.gradcheck(
        lambda q, k: local_info_nce(q, k, 0.5, VALID, negatives), (query, key)
    )


def test_local_known_values():
    axes = 5 * torch.eye(4).expand(2, 4, 4)
    loss, logs = local_info_nce(axes, axes, 0.2, return_logs=True)
    assert loss.item() == pytest.approx(math.log(1 + 3 * math.exp(-5)), rel=1e-4)
    assert logs['top1'] == 1 and logs['valid_share'] == 1
    same = torch.ones(2, 16, 8)
    loss, logs = local_info_nce(same, same, return_logs=True)
    assert loss.item() == pytest.approx(math.log(16))
    assert logs['chance_level'].item() == pytest.approx(math.log(16))


def test_local_ignores_lengths_and_order():
    query, key = regions(1), regions(2)
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(
        local_info_nce(query, key, valid=VALID),
        local_info_nce(7 * query[:, order], key[:, order] / 3, valid=VALID[:, order]),
    )


def test_local_gradient_reaches_the_query_side_only():
    query, key = (regions(seed).requires_grad_() for seed in (1, 2))
    queue = rows(6, 8, seed=3).requires_grad_()
    local_info_nce(query, key.detach(), queue=queue, valid=VALID).backward()
    assert key.grad is None and queue.grad is None
    assert ((query.grad.abs().sum(dim=2) > 0) == VALID).all()


@pytest.mark.parametrize('negatives', ['image', 'batch'])
@pytest.mark.parametrize('fill', [0.0, float('nan'), float('inf')])
def test_invalid_regions_may_hold_anything(negatives, fill):
    query, key = regions(1), regions(2)
    expected = local_info_nce(query, key, 0.2, VALID, negatives)
    query[~VALID], key[~VALID] = fill, fill
    query.requires_grad_()
    found = local_info_nce(query, key, 0.2, VALID, negatives)
    torch.testing.assert_close(found, expected)
    (grad,) = gradients(found, query)
    assert grad.isfinite().all()


@pytest.mark.parametrize(
    'valid',
    [
        torch.zeros(3, 5, dtype=torch.bool),
        torch.eye(3, 5, dtype=torch.bool),  # one per image: nothing to compare
    ],
    ids=['none', 'lonely'],
)
def test_no_region_that_counts(valid):
    query = regions(1).requires_grad_()
    loss, logs = local_info_nce(query, regions(2), valid=valid, return_logs=True)
    assert loss == 0 and logs['valid_share'] == 0
    assert (gradients(loss, query)[0] == 0).all()


def test_local_form_is_float32_under_autocast():
    query, key = regions(1, width=64), regions(2, width=64)
    expected = local_info_nce(query.bfloat16().float(), key, 0.05)
    with torch.autocast('cpu', torch.bfloat16):
        loss = local_info_nce(query.bfloat16(), key, 0.05)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)


def local_part(negatives, masked):
    """Loss, logs and averaged gradients of this process' images."""
    size = 4 // world_size()
    part = slice(rank() * size, (rank() + 1) * size)
    valid = torch.cat([VALID, torch.zeros(1, 5, dtype=torch.bool)])[part]
    query, key = (regions(seed, 4)[part].requires_grad_() for seed in (1, 2))
    patients = torch.tensor([7, 8, 7, 7])[part] if masked else None
    loss, logs = local_info_nce(
        query, key, 0.2, valid, negatives, return_logs=True, patients=patients
    )
    loss.backward()
    # Parameters would average the gradients of the processes.
    grads = [rows.grad / world_size() for rows in (query, key)]
    return [loss.detach(), *logs.values()], grads


@pytest.mark.parametrize(
    'negatives, masked', [('image', False), ('batch', False), ('batch', True)]
)
def test_local_form_on_two_processes_equals_one(negatives, masked):
    values, grads = local_part(negatives, masked)
    parts = run_processes(local_part, 2, negatives, masked)
    for index, value in enumerate(values):
        mean = torch.stack([found[index] for found, _ in parts]).mean()
        torch.testing.assert_close(mean, value)
    for index, grad in enumerate(grads):
        torch.testing.assert_close(
            torch.cat([found[index] for _, found in parts]), grad
        )


ONES = [torch.ones(2, 4, 8)] * 2


@pytest.mark.parametrize(
    'arguments, message',
    [
        ((torch.ones(2, 4, 8), torch.ones(2, 4, 7)), r'\(2, 4, 8\) and \(2, 4, 7\)'),
        ((torch.ones(4, 8), torch.ones(4, 8)), r'must both be \(N, R, D\)'),
        (
            (torch.ones(2, 4, 8), torch.ones(2, 4, 8), 0.2, torch.ones(2, 3) > 0),
            r'valid must be \(2, 4\) of bool .* got \(2, 3\)',
        ),
        (
            (torch.ones(2, 4, 8), torch.ones(2, 4, 8), 0.2, torch.ones(2, 4)),
            'torch.float32',
        ),
        (
            (torch.ones(2, 4, 8), torch.ones(2, 4, 8), 0.2, None, 'all'),
            "'image' or 'batch', got 'all'",
        ),
        (
            (
                torch.ones(2, 4, 8),
                torch.ones(2, 4, 8),
                0.2,
                None,
                'image',
                torch.ones(3, 7),
            ),
            r'queue must be \(K, 8\) .* got \(3, 7\)',
        ),
        ((torch.ones(2, 1, 8), torch.ones(2, 1, 8)), 'one region per image'),
        ((torch.ones(2, 4, 8), torch.ones(2, 4, 8), -1.0), 'positive, got -1'),
        (
            (
                *[torch.ones(2, 4, 8)] * 2,
                0.2,
                None,
                'image',
                None,
                False,
                torch.ones(2),
            ),
            "for negatives='batch'",
        ),
        (
            (
                *[torch.ones(2, 4, 8)] * 2,
                0.2,
                None,
                'batch',
                None,
                False,
                torch.ones(3),
            ),
            r'patients must be \(2,\), one per image, got \(3,\)',
        ),
    ],
)
def test_wrong_regions(arguments, message):
    with pytest.raises(ValueError, match=message):
        local_info_nce(*arguments)


def views(dtype=torch.float64, samples=6, scale=3.0):
    generator = torch.Generator().manual_seed(0)
    return [
        scale * torch.randn(samples, 8, generator=generator, dtype=dtype)
        for _ in range(2)
    ]


def masked_cross_entropy(view_a, view_b, temperature):
    """The form with a masked diagonal, written out."""
    rows = torch.cat([view_a, view_b])
    rows = rows / rows.norm(dim=1, keepdim=True)
    logits = rows @ rows.T / temperature
    logits = logits - torch.diag(torch.full((len(rows),), torch.inf).to(logits))
    samples = len(view_a)
    partner = torch.cat([torch.arange(samples) + samples, torch.arange(samples)])
    return torch.nn.functional.cross_entropy(logits, partner)


def subtracted_sum(view_a, view_b, temperature):
    """The form of lightning-bolts: the own term is taken off the sum."""
    rows = unit_rows(torch.cat([view_a, view_b]))
    shares = (rows @ rows.T / temperature).exp()
    total = shares.sum(1) - math.exp(1 / temperature)
    positive = ((unit_rows(view_a) * unit_rows(view_b)).sum(1) / temperature).exp()
    return -(torch.cat([positive, positive]) / total.clamp(min=1e-6)).log().mean()


@pytest.mark.parametrize('form', [masked_cross_entropy, subtracted_sum])
@pytest.mark.parametrize('temperature', [0.1, 0.5])
def test_nt_xent_equals_other_forms(form, temperature):
    """Value and gradient, also of embeddings that are not normalised."""
    view_a, view_b = (view.requires_grad_() for view in views())
    found, expected = (f(view_a, view_b, temperature) for f in (nt_xent, form))
    assert abs(found - expected) < 1e-6
    for ours, reference in zip(
        gradients(found, view_a, view_b), gradients(expected, view_a, view_b)
    ):
        torch.testing.assert_close(ours, reference, rtol=1e-6, atol=1e-9)


def test_nt_xent_gradcheck():
    inputs = tuple(view.requires_grad_() for view in views(samples=3))
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.5), inputs)


def test_nt_xent_known_values():
    """Equal rows everywhere are chance; orthogonal pairs the minimum."""
    row = rows(1, 8).double().expand(4, 8)
    assert nt_xent(row, row).item() == pytest.approx(math.log(7))
    axes = torch.eye(8).double()[:4]
    loss, top1 = nt_xent(axes, 5 * axes, 0.2, return_top1=True)
    assert loss.item() == pytest.approx(math.log(1 + 6 * math.exp(-5)))
    assert top1 == 1


def test_nt_xent_order_scale_and_views_are_irrelevant():
    view_a, view_b = views()
    expected = nt_xent(view_a, view_b)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    torch.testing.assert_close(nt_xent(view_b, view_a), expected)
    torch.testing.assert_close(nt_xent(view_a[order], view_b[order]), expected)
    torch.testing.assert_close(nt_xent(7 * view_a, view_b), expected)


def test_nt_xent_top1_counts_rows_nearest_to_their_partner():
    axes = torch.eye(4)
    view_b = torch.stack([axes[0], axes[0] + 0.5 * axes[1]])
    # The last row is nearer to the first sample than to its partner.
    _, top1 = nt_xent(axes[:2], view_b, return_top1=True)
    assert top1.item() == pytest.approx(0.75)


def test_nt_xent_is_float32_under_autocast():
    view_a, view_b = views(torch.float32)
    expected = nt_xent(view_a, view_b, 0.05)
    with torch.autocast('cpu', torch.bfloat16):
        loss = nt_xent(view_a, view_b, 0.05)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)


def own_nt_xent():
    """Loss and gradient of the rows of this process."""
    size = 6 // world_size()
    part = slice(rank() * size, (rank() + 1) * size)
    own = [view[part].clone().requires_grad_() for view in views()]
    loss = nt_xent(*own)
    return loss.detach(), gradients(loss, *own)


@pytest.mark.parametrize('processes', [2, 3])
def test_nt_xent_of_several_processes_equals_one(processes):
    expected, expected_grads = own_nt_xent()
    losses, grads = zip(*run_processes(own_nt_xent, processes))
    torch.testing.assert_close(torch.stack(losses).mean(), expected)
    for position, reference in enumerate(expected_grads):
        # DistributedDataParallel would average: each has its rows' share.
        found = torch.cat([grad[position] for grad in grads]) / processes
        torch.testing.assert_close(found, reference)


@pytest.mark.parametrize(
    'shapes, temperature, message',
    [
        (((4, 3), (4, 2)), 0.1, r'must be \(N, D\), got \(4, 3\) and \(4, 2\)'),
        (((4,), (4,)), 0.1, 'must be'),
        (((1, 3), (1, 3)), 0.1, 'two samples or more'),
        (((4, 3), (4, 3)), 0.0, 'positive, got 0.0'),
    ],
)
def test_nt_xent_wrong_input(shapes, temperature, message):
    with pytest.raises(ValueError, match=message):
        nt_xent(*(torch.rand(shape) for shape in shapes), temperature)


@pytest.mark.parametrize('size', [16, 128, 2048])
def test_nothing_is_nearest_where_all_are_alike(size):
    """Whatever the rounding of products that are computed in two ways."""
    torch.manual_seed(size)
    rows = unit_rows(torch.randn(1, size)).expand(32, size).contiguous()
    queue = rows[:1].expand(256, size).contiguous()
    assert info_nce(rows, rows, queue, return_top1=True)[1] == 0
    assert info_nce(rows, rows, return_top1=True)[1] == 0
    assert nt_xent(rows, rows, return_top1=True)[1] == 0
    regions = rows.view(2, 16, size)
    for negatives in ('image', 'batch'):
        _, logs = local_info_nce(
            regions, regions, negatives=negatives, queue=queue, return_logs=True
        )
        assert logs['top1'] == 0


def test_one_other_that_is_as_near_is_no_hit():
    axes = torch.eye(4)
    key = axes[:3].clone()
    queue = axes[[0, 3]]  # the first query's own key once more
    assert info_nce(axes[:3], key, queue, return_top1=True)[1].item() == (
        pytest.approx(2 / 3)
    )
    key[1] = key[0]
    assert info_nce(axes[:3], key, return_top1=True)[1].item() == pytest.approx(1 / 3)
