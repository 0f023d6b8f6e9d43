import pytest
import torch
from torch import nn

from medssl_mm.models.utils import FeatureCache


class Counting(nn.Module):
    """Two maps per image; counts the images that it has seen."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.images = 0

    def forward(self, images):
        self.images += len(images)
        first = self.first(images)
        return first, self.norm(self.second(first))


class OneMap(nn.Sequential):
    """What its layers make, as a backbone returns it."""

    def forward(self, images):
        return (super().forward(images),)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Counting().eval()


def images(number, seed=1):
    return torch.randn(number, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_returns_what_the_network_returns_and_runs_it_once(network):
    batch = images(6)
    expected = network(batch)
    network.images = 0
    cache = FeatureCache(network, [0, 1], 2**20)
    for rows in ([0, 1, 2], [2, 1, 5, 5], [4, 3, 0]):
        maps = cache(batch[rows])
        for got, want in zip(maps, expected, strict=True):
            torch.testing.assert_close(got, want[rows])
    assert network.images == len(cache) == 6


def test_an_image_has_the_same_bits_in_every_batch():
    """So that a run that is resumed, with an empty cache, ends like any other."""
    torch.manual_seed(0)
    wide = OneMap(nn.Conv2d(16, 16, 3))
    batch = torch.randn(8, 16, 8, 8)
    whole = FeatureCache(wide, [0], 2**20)(batch)[0]
    for rows in ([0], [1, 2], [2, 5, 7], [7, 6, 5, 4, 3]):
        resumed = FeatureCache(wide, [0], 0)
        assert torch.equal(resumed(batch[rows])[0], whole[rows])


def test_only_the_wanted_maps_are_kept(network):
    cache = FeatureCache(network, [0], 2**20)
    first, second = cache(images(2))
    assert second is None and first.shape == (2, 3, 8, 8)
    assert cache.used_bytes == 2 * 3 * 64 * 4


def test_images_that_differ_in_one_pixel_are_different(network):
    batch = images(1).repeat(2, 1, 1, 1)
    batch[1, 0, 7, 7] += 1e-6
    FeatureCache(network, [1], 2**20)(batch)
    assert network.images == 2


@pytest.mark.parametrize(
    'write',
    [
        lambda n: n.second.weight.add_(1),
        lambda n: n.norm.running_mean.add_(1),
        lambda n: n.load_state_dict({k: v + 1 for k, v in n.state_dict().items()}),
        lambda n: n.double().float(),
    ],
)
def test_a_changed_network_is_called_again(network, write):
    cache = FeatureCache(network, [1], 2**20)
    cache(images(3))
    with torch.no_grad():
        write(network)
    got = cache(images(3))[1]
    torch.testing.assert_close(got, network(images(3))[1])


def test_precisions_do_not_mix(network):
    cache = FeatureCache(network, [1], 2**20)
    full = cache(images(3))[1]
    with torch.autocast('cpu', torch.bfloat16):
        reduced = cache(images(3))[1]
        # In a batch bfloat16 may round otherwise.
        alone = torch.cat([network(image[None])[1] for image in images(3)])
    assert torch.equal(reduced, alone)
    assert not torch.equal(reduced.float(), full)
    torch.testing.assert_close(cache(images(3))[1], full)
    assert len(cache) == 6


def test_beyond_the_limit_features_are_computed_again(network):
    size = 5 * 16 * 4
    cache = FeatureCache(network, [1], 2 * size + 1)
    expected = network(images(4))[1]
    network.images = 0
    for _ in range(2):
        torch.testing.assert_close(cache(images(4))[1], expected)
    assert len(cache) == 2 and cache.used_bytes == 2 * size
    assert network.images == 4 + 2
