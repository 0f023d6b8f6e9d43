import pytest
import torch
from torch import nn

from medssl_mm.backbones import backbone_of, encoder_features
from medssl_mm.errors import UserError


class Stages(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Conv2d(1, 2, 1)
        self.layer2 = nn.Conv2d(2, 3, 1, stride=2)

    def forward(self, x):
        return (self.layer2(self.layer1(x)),)


class Double(nn.Module):
    stage = None

    def forward(self, x):
        return 2 * x


class Neck(nn.Module):
    def forward(self, maps):
        return [maps[0].sum((2, 3))]


def test_places():
    backbone, images = Stages(), torch.rand(2, 1, 4, 4)
    found = encoder_features(backbone, Neck(), images, Double())
    first = backbone.layer1(images)
    last = backbone.layer2(first)
    expected = dict(
        stage1=first,
        stage2=last,
        decorrelated=2 * last,
        pooled=2 * last.mean((2, 3)),
        projection=2 * last.sum((2, 3)),
    )
    torch.testing.assert_close(found, expected)
    assert not backbone.layer1._forward_hooks
    plain = encoder_features(backbone, Neck(), images)
    assert 'decorrelated' not in plain
    torch.testing.assert_close(plain['pooled'], last.mean((2, 3)))


def test_decorrelation_of_the_projection():
    backbone, images = Stages(), torch.rand(2, 1, 4, 4)
    after = Double()
    after.on_projection = True
    found = encoder_features(backbone, Neck(), images, after)
    plain = encoder_features(backbone, Neck(), images)
    torch.testing.assert_close(found.pop('decorrelated'), 2 * plain['projection'])
    torch.testing.assert_close(found, plain)


class Net(nn.Module):
    """Two stages of blocks that change their input in place."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 1)
        self.layer1 = nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True))
        )
        self.layer2 = nn.Sequential(nn.Conv2d(4, 5, 3))

    def forward(self, x):
        return self.layer2(self.layer1(self.conv(x)))


def test_pooled_features_are_means_over_positions():
    torch.manual_seed(0)
    net, images = Net(), torch.rand(3, 1, 6, 6)
    stem = net.conv(images)
    first = net.layer1[0](stem)
    second = net.layer1[1](first.clone())
    expected = {
        'stem': stem,
        'stage1': second,
        'stage2': net.layer2(second),
        'stage1.0': first,
        'stage1.1': second,
        'stage2.0': net.layer2(second),
    }
    assert list(backbone_of(net).feature_taps()) == ['stem', 'stage1', 'stage2']
    assert list(backbone_of(net).block_taps()) == ['stage1.0', 'stage1.1', 'stage2.0']
    for taps in (backbone_of(net).feature_taps(), backbone_of(net).block_taps()):
        found = backbone_of(net).pooled(images, taps)
        assert list(found) == list(taps)
        for name, values in found.items():
            torch.testing.assert_close(values, expected[name].mean((2, 3)).detach())
            assert not values.requires_grad
    assert not net.layer1._forward_hooks and not net.layer1._forward_pre_hooks


def test_hooks_are_removed_after_an_error():
    net = Net()
    with pytest.raises(RuntimeError):
        backbone_of(net).pooled(torch.rand(1, 2, 6, 6), backbone_of(net).feature_taps())
    assert not net.layer1._forward_hooks and not net.layer1._forward_pre_hooks


def test_half_precision_maps_are_pooled_in_single():
    net = Net().bfloat16()
    images = torch.rand(2, 1, 40, 40).bfloat16()
    found = backbone_of(net).pooled(images, backbone_of(net).feature_taps())['stage1']
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, net.layer1(net.conv(images)).float().mean((2, 3)))


def test_other_networks_are_refused():
    with pytest.raises(UserError, match='Conv2d .* ResNet, DenseNet, ConvNeXt'):
        backbone_of(nn.Conv2d(1, 1, 1))
