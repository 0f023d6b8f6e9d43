import torch

from medssl_mm.backbones import backbone_of
from medssl_mm.models import HandmadeFeatures


def test_it_has_one_place_at_full_resolution():
    network = HandmadeFeatures(in_channels=2, scales=(1, 2))
    backbone = backbone_of(network)
    channels = 9 + 2 * 7
    assert backbone.names == {1: 'stage1'} and backbone.last == 1
    assert (backbone.in_channels, backbone.outputs) == (2, 1)
    assert backbone.channels == {1: channels} and backbone.strides == {1: 1}
    assert backbone.output_channels == (channels,)
    images = torch.randn(1, 2, 16, 16)
    (level,) = network(images)
    assert torch.equal(backbone.maps(images, [1])[1], level)
    assert level.shape == (1, channels, 16, 16)
