import pytest
import torch
from mmengine.structures import BaseDataElement

from medssl_mm.errors import UserError
from medssl_mm.models.heads import RestorationHead
from medssl_mm.models.heads.restoration_head import hidden_patches
from tests.models.algorithms.test_masked_restoration import DEEPLAB, LIGHT

CHANNELS = {1: 8, 2: 16, 3: 32, 4: 64}


@pytest.mark.parametrize('decoder', [LIGHT, DEEPLAB])
def test_channels_come_from_the_backbone(decoder):
    head = RestorationHead(decoder, CHANNELS, image_channels=3)
    maps = [torch.randn(2, c, 16 // 2**n, 16 // 2**n) for n, c in enumerate((8, 16))]
    maps += [torch.randn(2, c, 4, 4) for c in (32, 64)]
    decoded = head.decode_head(maps)
    assert decoded.shape == (2, 8, 16, 16)
    assert head.to_image(decoded).shape == (2, 3, 16, 16)
    assert not any('conv_seg' in name for name in head.state_dict())


def test_patches_come_with_the_samples():
    grids = [torch.eye(2).bool().numpy(), ~torch.eye(2).bool().numpy()]
    samples = [BaseDataElement(metainfo=dict(hidden_patches=grid)) for grid in grids]
    found = hidden_patches(samples, 2)
    assert found.tolist() == [grid.tolist() for grid in grids]
    for wrong, count in ((samples, 3), (samples[:1] + [BaseDataElement()], 2)):
        with pytest.raises(UserError, match='do not say which patches'):
            hidden_patches(wrong, count)
