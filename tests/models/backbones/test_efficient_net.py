import pytest
import torch
from mmpretrain.models.backbones import EfficientNet

from medssl_mm.engine.pretrained import load_pretrained_backbone
from medssl_mm.models.backbones import EfficientNetAnyChannels


@pytest.mark.parametrize('arch', ['b0', 'es'])
def test_takes_grey_images_and_the_weights_of_the_host(arch):
    torch.manual_seed(0)
    host = EfficientNet(arch)
    ours = EfficientNetAnyChannels(1, arch=arch)
    report = load_pretrained_backbone(ours, host.state_dict())
    assert report.complete and not report.unexpected
    assert len(report.adapted) == 1 and '3 -> 1' in report.adapted[0]
    for net in (host, ours):
        net.eval()
    grey = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(
        ours(grey)[-1], host(grey.expand(-1, 3, -1, -1))[-1], rtol=1e-3, atol=1e-4
    )


def test_three_channels_are_the_host_s():
    torch.manual_seed(0)
    ours = EfficientNetAnyChannels(3)
    host = EfficientNet()
    host.load_state_dict(ours.state_dict())
    ours.eval()
    host.eval()
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(ours(images)[-1], host(images)[-1])
