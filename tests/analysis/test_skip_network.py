import pytest
import torch

from medssl_mm.analysis.skip_network import SkipNetwork, noise_size


def test_network_is_that_of_the_study():
    network = SkipNetwork()
    assert sum(p.numel() for p in network.parameters()) == 2_606_763
    # Six scales, each with a skip connection of 4 channels.
    skips = [n for n, p in network.named_parameters() if p.shape[:1] == (4,)]
    assert len(skips) == 6 * 4  # weights and biases of a convolution and its norm


def test_picture_has_the_size_of_the_noise():
    noise = torch.rand(1, 32, 128, 192)
    assert SkipNetwork()(noise).shape == (1, 3, 128, 192)
    assert SkipNetwork(channels=1)(noise).shape == (1, 1, 128, 192)


@pytest.mark.parametrize(
    'size, expected', [(224, 256), (256, 256), (257, 320), (32, 128), (320, 320)]
)
def test_noise_is_large_enough_and_fits_the_scales(size, expected):
    assert noise_size(size) == expected


def test_every_weight_learns():
    network = SkipNetwork()
    network(torch.rand(1, 32, 128, 128)).square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())
