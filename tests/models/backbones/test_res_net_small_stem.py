import pytest
import torch
from mmpretrain.models.backbones import ResNet, ResNet_CIFAR
from torch.nn import functional as F

from medssl_mm.backbones import backbone_of, describe_weights
from medssl_mm.engine.pretrained import load_pretrained_backbone
from medssl_mm.models.backbones import ResNetSmallStem

SMALL = dict(depth=18, base_channels=4, stem_channels=4)


@pytest.mark.parametrize(
    'max_pool, sides', [(True, (16, 8, 4, 2)), (False, (32, 16, 8, 4))]
)
def test_stem_keeps_the_size(max_pool, sides):
    network = ResNetSmallStem(max_pool=max_pool, out_indices=(0, 1, 2, 3), **SMALL)
    assert network.conv1.weight.shape == (4, 3, 3, 3)
    assert network.conv1.stride == (1, 1)
    maps = network(torch.rand(2, 3, 32, 32))
    assert tuple(level.shape[-1] for level in maps) == sides
    places = backbone_of(network)
    assert places.channels == {0: 4, 1: 4, 2: 8, 3: 16, 4: 32}
    assert [places.strides[n] for n in range(5)] == [1, *(32 // side for side in sides)]


def test_without_max_pooling_it_is_the_host_s():
    torch.manual_seed(0)
    host = ResNet_CIFAR(**SMALL).double()
    ours = ResNetSmallStem(max_pool=False, **SMALL).double()
    ours.load_state_dict(host.state_dict())  # strict
    images = torch.rand(2, 3, 32, 32).double()
    torch.testing.assert_close(ours(images)[-1], host(images)[-1])


def test_with_max_pooling_it_is_a_resnet_behind_the_first_convolution():
    torch.manual_seed(0)
    host, ours = ResNet(**SMALL).double(), ResNetSmallStem(**SMALL).double()
    state = {k: v for k, v in host.state_dict().items() if k != 'conv1.weight'}
    ours.load_state_dict(state, strict=False)
    images = torch.rand(2, 3, 32, 32).double()
    found = ours(images)[-1]
    level = F.max_pool2d(
        ours.bn1(ours.conv1(images)).relu(), kernel_size=3, stride=2, padding=1
    )
    for number in range(1, 5):
        level = getattr(host, f'layer{number}')(level)
    torch.testing.assert_close(found, level)


def test_weights_of_another_stem_are_refused():
    network = ResNetSmallStem(**SMALL)
    assert describe_weights(network.state_dict()) == 'ResNet-18'
    with pytest.raises(
        ValueError, match=r'conv1.weight: \(4, 3, 7, 7\) .* \(4, 3, 3, 3\)'
    ):
        load_pretrained_backbone(network, ResNet(**SMALL).state_dict())


def test_deep_stem_is_refused():
    with pytest.raises(ValueError, match='leave deep_stem out'):
        ResNetSmallStem(deep_stem=True, **SMALL)
