import pytest
import torch
from torch import nn

from medssl_mm.models.necks import BarlowTwinsNeck
from medssl_mm.registry import MODELS


def level(seed=0):
    torch.manual_seed(seed)
    return torch.randn(6, 4, 5, 3)


def test_three_layers_on_the_mean_of_the_map():
    neck = BarlowTwinsNeck(4, hid_channels=8, out_channels=10)
    maps = level()
    found = neck(maps, 0, None)
    x = maps.mean(dim=(2, 3))
    linear = [part for part in neck.projector if isinstance(part, nn.Linear)]
    assert [tuple(part.weight.shape) for part in linear] == [(8, 4), (8, 8), (10, 8)]
    assert not any(part.bias is not None for part in linear)
    for part in linear[:-1]:
        x = x @ part.weight.T
        x = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
        x = x.clamp_min(0)
    torch.testing.assert_close(found, x @ linear[-1].weight.T)


def test_each_view_has_its_own_batch_statistics():
    neck = BarlowTwinsNeck(4, 8, 8)
    first, second = level(), level(1)
    alone = neck(first, 0, None)
    neck(10 * second + 5, 1, None)
    torch.testing.assert_close(neck(first, 0, None), alone)


def test_size_of_the_published_projectors():
    """Parameters in millions for the stages of ResNet-50."""
    sizes = [
        sum(p.numel() for p in BarlowTwinsNeck(channels).parameters()) / 1e6
        for channels in (256, 512, 1024, 2048)
    ]
    assert sizes == pytest.approx([8.9, 9.4, 10.5, 12.6], abs=0.06)


def test_number_of_layers_and_normalisation():
    neck = BarlowTwinsNeck(4, 8, 6, layers=2, norm_cfg=dict(type='GN', num_groups=2))
    assert [type(part) for part in neck.projector] == [
        nn.Linear,
        nn.GroupNorm,
        nn.ReLU,
        nn.Linear,
    ]
    single = MODELS.build(
        dict(type='medssl_mm.BarlowTwinsNeck', in_channels=4, out_channels=6, layers=1)
    )
    maps = level()
    torch.testing.assert_close(
        single(maps, 0, None), maps.mean(dim=(2, 3)) @ single.projector[0].weight.T
    )


def test_wrong_settings_and_shapes():
    with pytest.raises(ValueError, match='at least 1, got 4, 0, 2048 and 3'):
        BarlowTwinsNeck(4, hid_channels=0)
    with pytest.raises(ValueError, match=r'needs a map .* got \(6, 4\)'):
        BarlowTwinsNeck(4, 8, 8)(torch.randn(6, 4), 0, None)
