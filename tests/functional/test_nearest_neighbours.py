import math

import pytest
import torch

from medssl_mm.functional.nearest_neighbours import (
    cosine_neighbours,
    nearest_neighbour_probabilities,
    neighbour_votes,
)


def features(count, seed, dim=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=generator, dtype=torch.float64)


def slow_probabilities(queries, bank, targets, k, temperature):
    """From the definition, one pair at a time."""
    found = []
    for query in queries.tolist():
        pairs = []
        for row, other in enumerate(bank.tolist()):
            dot = sum(a * b for a, b in zip(query, other))
            lengths = math.hypot(*query) * math.hypot(*other)
            pairs.append((dot / lengths, row))
        nearest = sorted(pairs, reverse=True)[:k]
        weights = [math.exp(similarity / temperature) for similarity, _ in nearest]
        found.append(
            [
                sum(w for w, (_, row) in zip(weights, nearest) if targets[row][c])
                / sum(weights)
                for c in range(targets.shape[1])
            ]
        )
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize('multi_label', [False, True])
@pytest.mark.parametrize('chunk', [1, 3, 4, 100])
def test_equals_the_definition(chunk, multi_label):
    queries, bank = features(7, 0), features(23, 1)
    generator = torch.Generator().manual_seed(2)
    if multi_label:
        targets = torch.rand(23, 4, generator=generator) > 0.6
    else:
        classes = torch.randint(4, (23,), generator=generator)
        targets = torch.nn.functional.one_hot(classes, 4).bool()
    found = nearest_neighbour_probabilities(queries, bank, targets, 5, 0.3, chunk)
    wanted = slow_probabilities(queries, bank, targets, 5, 0.3)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    if not multi_label:
        torch.testing.assert_close(
            found.sum(1), torch.ones(7, dtype=torch.float64), rtol=1e-12, atol=0
        )


def test_length_of_features_does_not_matter():
    queries, bank = features(5, 0), features(9, 1)
    scale = 10 ** torch.linspace(-3, 3, 9, dtype=torch.float64)[:, None]
    near, rows = cosine_neighbours(queries, bank, 4)
    scaled, scaled_rows = cosine_neighbours(1e4 * queries, scale * bank, 4)
    assert torch.equal(rows, scaled_rows)
    torch.testing.assert_close(near, scaled, rtol=1e-12, atol=1e-12)
    assert (near.diff(dim=1) <= 0).all()


def test_an_image_is_its_own_nearest_neighbour():
    bank = features(30, 3)
    near, rows = cosine_neighbours(bank, bank, 1, chunk=7)
    assert torch.equal(rows[:, 0], torch.arange(30))
    torch.testing.assert_close(near, torch.ones_like(near))


def test_small_temperature_leaves_the_nearest_one():
    """Without overflow: the exponent would be 10000."""
    queries, bank = features(6, 0), features(11, 1)
    targets = torch.eye(11, dtype=torch.bool)
    found = nearest_neighbour_probabilities(queries, bank, targets, 5, 1e-4)
    _, rows = cosine_neighbours(queries, bank, 1)
    assert torch.equal(found.argmax(1), rows[:, 0])
    assert found.isfinite().all() and (found.max(1).values > 0.99).all()


def test_features_without_length_and_reduced_precision():
    bank = features(5, 0)
    bank[2] = 0
    near, _ = cosine_neighbours(torch.zeros(1, 6, dtype=torch.float64), bank, 3)
    assert torch.equal(near, torch.zeros(1, 3, dtype=torch.float64))
    half = cosine_neighbours(bank.bfloat16(), bank.bfloat16(), 2)[0]
    assert half.dtype is torch.float32
    none, rows = cosine_neighbours(bank[:0], bank, 2)
    assert none.shape == rows.shape == (0, 2)


@pytest.mark.parametrize(
    'arguments, message',
    [
        ((features(2, 0), features(3, 1, dim=5), 1), r'\(2, 6\) and \(3, 5\)'),
        ((features(2, 0), features(3, 1), 4), 'k=4 must be from 1 to the 3 rows'),
        ((features(2, 0), features(3, 1), 0), 'k=0 must be from 1'),
        ((features(2, 0), features(3, 1), 1, 0), 'chunk=0 must be 1 or more'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        cosine_neighbours(*arguments)


def test_wrong_temperature():
    near, rows = cosine_neighbours(features(2, 0), features(3, 1), 1)
    with pytest.raises(ValueError, match='temperature must be above 0, got 0'):
        neighbour_votes(near, rows, torch.ones(3, 1), 0)
