"""Small pictures as features."""

import cv2
import numpy as np
import pytest
import torch

from medssl_mm.backbones import backbone_of
from medssl_mm.encoders import load_encoder
from medssl_mm.models import RawPixels


def test_features_are_the_means_of_squares():
    images = torch.rand(2, 3, 64, 64)
    network = RawPixels()
    (found,) = network(images)
    expected = [
        cv2.resize(channel.numpy(), (16, 16), interpolation=cv2.INTER_AREA).ravel()
        for image in images
        for channel in image
    ]
    assert found.shape == (2, 768, 1, 1)
    np.testing.assert_allclose(
        found.flatten().numpy(), np.concatenate(expected), atol=1e-6
    )
    assert backbone_of(network).output_channels == (768,)


def test_wrong_settings_and_images():
    with pytest.raises(ValueError, match='side must be 1 or more'):
        RawPixels(side=0)
    with pytest.raises(ValueError, match='images have 1 channels, in_channels is 3'):
        RawPixels()(torch.zeros(1, 1, 8, 8))


def test_the_encoder_of_a_picture():
    """Grey pictures are shown in three channels, as to every encoder."""
    encoder = load_encoder('random:raw-pixels')
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    features = encoder(encoder.preprocessing(picture)[None])
    small = cv2.resize(
        picture.astype(np.float32), (16, 16), interpolation=cv2.INTER_AREA
    )
    np.testing.assert_allclose(
        features[0].detach().numpy().reshape(3, 16, 16),
        small.transpose(2, 0, 1) / 255,
        atol=1e-4,
    )
