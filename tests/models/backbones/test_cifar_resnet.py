import pytest
import torch
from torch.nn import functional as F

from medssl_mm.backbones import backbone_of
from medssl_mm.errors import UserError
from medssl_mm.models.backbones import CifarResNet
from medssl_mm.registry import MODELS


@pytest.mark.parametrize(
    'depth, millions', [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_sizes_of_the_paper(depth, millions):
    """Table 6 of the paper; its last layer has 650 of them."""
    network = CifarResNet(depth)
    weights = sum(p.numel() for p in network.parameters()) + 650
    assert round(weights / 1e6, 2 if depth < 110 else 1) == millions


def test_is_a_backbone():
    torch.manual_seed(0)
    network = MODELS.build(
        dict(type='medssl_mm.CifarResNet', depth=20, in_channels=1, out_indices=(0, 2))
    ).eval()
    places = backbone_of(network)
    assert list(places.names.values()) == ['stem', 'stage1', 'stage2', 'stage3']
    assert places.channels == {0: 16, 1: 16, 2: 32, 3: 64}
    assert places.strides == {0: 1, 1: 1, 2: 2, 3: 4}
    images = torch.rand(2, 1, 32, 32)
    maps = places.maps(images, [1, 3])
    for found, expected in zip(network(images), maps.values(), strict=True):
        torch.testing.assert_close(found, expected)


def test_shortcut_has_no_weights():
    """With its last scale at 0 a block is the shortcut alone."""
    network = CifarResNet(20).eval()
    block = network.layer2[0]
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.randn(1, 16, 8, 8)
    out = block(x)
    torch.testing.assert_close(out[:, 8:24], F.relu(x[:, :, ::2, ::2]))
    assert not out[:, :8].any() and not out[:, 24:].any()


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(depth=18), 'depth must be 6 n .* got 18'),
        (dict(depth=2), 'depth must be'),
        (dict(depth=20, out_indices=(3,)), r'out_indices must be .* got \(3,\)'),
    ],
)
def test_settings(settings, message):
    with pytest.raises(UserError, match=message):
        CifarResNet(**settings)
