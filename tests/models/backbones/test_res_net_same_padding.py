"""SAME padding, against sums written out as TensorFlow defines it."""

import math

import pytest
import torch
from mmpretrain.models.backbones import ResNet
from torch import nn
from torch.nn import functional as F

from medssl_mm.backbones import backbone_of
from medssl_mm.models.backbones import ResNetSamePadding

SMALL = dict(depth=50, base_channels=4, stem_channels=4)


def windows(x, kernel, stride, fill):
    """All windows, (N, C, kernel**2, cells): what is outside the image is fill."""
    ways = []
    for size in x.shape[2:]:
        cells = math.ceil(size / stride)
        before = max((cells - 1) * stride + kernel - size, 0) // 2
        ways.append([i * stride - before for i in range(cells)])
    padded = F.pad(x, (kernel,) * 4, value=fill)
    found = [
        padded[:, :, i + kernel : i + 2 * kernel, j + kernel : j + 2 * kernel]
        for i in ways[0]
        for j in ways[1]
    ]
    return torch.stack(found, -1).flatten(2, 3), tuple(map(len, ways))


def convolve(conv, x):
    seen, sides = windows(x, conv.kernel_size[0], conv.stride[0], 0.0)
    out = torch.einsum('nckl,ock->nol', seen, conv.weight.flatten(2))
    return out.unflatten(2, sides)


def slow(network, x):
    """A ResNet of bottlenecks, by the sums above."""
    x = F.relu(network.bn1(convolve(network.conv1, x)))
    seen, sides = windows(x, 3, 2, -math.inf)
    x = seen.amax(2).unflatten(2, sides)
    for number in range(1, 5):
        for block in getattr(network, f'layer{number}'):
            out = F.relu(block.bn1(convolve(block.conv1, x)))
            out = F.relu(block.bn2(convolve(block.conv2, out)))
            out = block.bn3(convolve(block.conv3, out))
            if block.downsample is not None:
                x = block.downsample[1](convolve(block.downsample[0], x))
            x = F.relu(out + x)
    return x


@pytest.mark.parametrize('size', [(64, 64), (50, 65), (33, 47)])
def test_equals_the_sums(size):
    torch.manual_seed(0)
    network = ResNetSamePadding(**SMALL).double()
    network.eval()
    images = torch.randn(2, 3, *size).double()
    expected = slow(network, images)
    assert expected.shape[2:] == tuple(math.ceil(side / 32) for side in size)
    torch.testing.assert_close(network(images)[-1], expected)
    # It is another network than the one with torch's padding.
    host = ResNet(**SMALL).double()
    host.load_state_dict(network.state_dict())
    host.eval()
    if size[0] % 2 == 0:
        assert not torch.allclose(host(images)[-1], expected)


def test_only_the_pooling():
    torch.manual_seed(0)
    network = ResNetSamePadding(convolutions=False, **SMALL).double()
    host = ResNet(**SMALL).double()
    host.load_state_dict(network.state_dict())
    assert all(type(part) is not nn.MaxPool2d for part in network.modules())
    network.eval()
    host.eval()
    images = torch.randn(2, 3, 64, 64).double()
    assert not torch.allclose(network(images)[-1], host(images)[-1])
    host.maxpool = network.maxpool
    torch.testing.assert_close(network(images)[-1], host(images)[-1])


def test_is_a_backbone():
    places = backbone_of(ResNetSamePadding(**SMALL))
    assert places.channels == {0: 4, 1: 16, 2: 32, 3: 64, 4: 128}
    assert places.strides == {0: 2, 1: 4, 2: 8, 3: 16, 4: 32}
