import pytest
import torch
from mmseg.registry import MODELS

from medssl_mm.functional.handmade import handmade_features
from medssl_mm.models import HandmadeFeatures
from tests.models.segmentors.test_frozen_encoder_decoder import batch


def test_one_map_of_28_features():
    images = torch.randn(2, 1, 32, 40)
    network = HandmadeFeatures()
    (found,) = network(images)
    assert found.shape == (2, 28, 32, 40) and network.out_channels == 28
    expected = handmade_features(images, (1, 2, 3, 5, 8, 13), 3)
    assert torch.equal(found, expected)
    assert not list(network.parameters()) and not network.state_dict()


def test_wrong_settings_and_images_are_named():
    with pytest.raises(ValueError, match=r'scales above 0 pixels.*scales=\(0, 2\)'):
        HandmadeFeatures(scales=(0, 2))
    with pytest.raises(ValueError, match='3 channels, in_channels is 1'):
        HandmadeFeatures()(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize('cache', [0.0, 0.1])
def test_a_linear_decoder_learns_from_it(cache):
    model = MODELS.build(
        dict(
            type='medssl_mm.FrozenEncoderDecoder',
            backbone=dict(type='medssl_mm.HandmadeFeatures'),
            decode_head=dict(
                type='medssl_mm.LinearHead', in_channels=28, in_index=0, num_classes=3
            ),
            feature_cache_gib=cache,
        )
    )
    torch.manual_seed(0)
    images, samples = batch()
    for sample in samples:
        # Left, middle, right: what the position alone tells.
        sample.gt_sem_seg.data = (torch.arange(32) // 11).expand(1, 32, 32).clone()
    optimizer = torch.optim.AdamW(model.decode_head.parameters(), lr=0.05)
    model.train()
    for _ in range(60):
        loss = model.loss(images, samples)
        optimizer.zero_grad()
        loss['decode.loss_ce'].backward()
        optimizer.step()
    assert loss['decode.acc_seg'] > 90
