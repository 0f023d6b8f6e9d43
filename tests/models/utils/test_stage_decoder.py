"""The decoder of a segmentation, without its layer of classes."""

import pytest
import torch
from mmengine.registry import DefaultScope

from medssl_mm.errors import UserError
from medssl_mm.models.utils import StageDecoder
from medssl_mm.registry import MODELS
from tests.models.algorithms.test_masked_restoration import DEEPLAB, LIGHT

CHANNELS = {1: 8, 2: 16, 3: 32, 4: 64}


@pytest.mark.parametrize(
    'settings, channels',
    [
        (LIGHT, dict(in_channels=[8, 16, 32, 64])),
        (DEEPLAB, dict(in_channels=64, c1_in_channels=8)),
    ],
)
def test_its_map_is_what_a_segmentor_makes_classes_of(settings, channels):
    torch.manual_seed(0)
    ours = StageDecoder(settings, CHANNELS).eval()
    whole = dict(settings, **channels, num_classes=5, dropout_ratio=0.0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        head = MODELS.build(whole).eval()
    left = head.load_state_dict(ours.decode_head.state_dict(), strict=False)
    assert not left.unexpected_keys
    assert set(left.missing_keys) == {'conv_seg.weight', 'conv_seg.bias'}
    sides = {1: 16, 2: 8, 3: 4, 4: 4}
    maps = {n: torch.rand(2, c, sides[n], sides[n]) for n, c in CHANNELS.items()}
    level = ours.decode(maps)
    assert level.shape == (2, ours.decode_head.channels, 16, 16)
    torch.testing.assert_close(head.conv_seg(level), head(list(maps.values())))


def test_a_stage_that_there_is_not_is_named():
    with pytest.raises(UserError, match=r'in_index=\[0, 7\].*4 stages'):
        StageDecoder(dict(LIGHT, in_index=[0, 7]), CHANNELS)
