import numpy as np
import pytest
import torch

from medssl_mm.functional.perceptual import feature_distance, unit_channels


def layers(seed):
    rng = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, 3, 4, 5, generator=rng, dtype=torch.float64),
        torch.randn(2, 6, 2, 2, generator=rng, dtype=torch.float64),
    ]


def test_distance_equals_a_slow_loop():
    one, other = layers(0), layers(1)
    found = feature_distance(one, other)
    for pair in range(2):
        total = 0.0
        for a, b in zip(one, other):
            _, channels, height, width = a.shape
            for y in range(height):
                for x in range(width):
                    u, v = a[pair, :, y, x].numpy(), b[pair, :, y, x].numpy()
                    u = u / (np.sqrt((u**2).sum()) + 1e-10)
                    v = v / (np.sqrt((v**2).sum()) + 1e-10)
                    total += ((u - v) ** 2).sum() / (height * width)
        assert float(found[pair]) == pytest.approx(total, rel=1e-12)


def test_distance_of_the_same_is_0_and_of_opposites_4_per_layer():
    one = layers(0)
    torch.testing.assert_close(feature_distance(one, one), torch.zeros(2).double())
    opposite = [-layer for layer in one]
    torch.testing.assert_close(
        feature_distance(one, opposite), torch.full((2,), 8).double()
    )


def test_length_of_the_channels_does_not_count():
    one, other = layers(0), layers(1)
    longer = [7 * layer for layer in other]
    torch.testing.assert_close(
        feature_distance(one, other), feature_distance(one, longer)
    )


def test_position_without_any_feature_stays_finite():
    assert not unit_channels(torch.zeros(1, 3, 2, 2)).any()


def test_layers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='equal shapes'):
        feature_distance(layers(0), layers(1)[:1])
    with pytest.raises(ValueError, match='equal shapes'):
        feature_distance([], [])
