import pytest
import torch

from medssl_mm.encoders import load_encoder, weights_digest
from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS
from tests.checkpoint_features.test_encoder import describe


def build(source, **settings):
    return MODELS.build(
        dict(type='medssl_mm.EncoderBackbone', source=str(source), **settings)
    )


def test_is_the_encoder_and_learns(tmp_path):
    path = describe(tmp_path / 'small.py', 'size=16, mean=(0.3,), std=(0.2,)')
    network = load_encoder(f'random:{path}', seed=4)
    torch.save(network.backbone.state_dict(), tmp_path / 'small.pth')
    found = build(f'{path}:{tmp_path / "small.pth"}', in_channels=1)
    assert found.training and all(p.requires_grad for p in found.parameters())
    found.eval()
    images = torch.rand(2, 1, 16, 16)
    (last,) = found(images)
    colour = (images.expand(-1, 3, -1, -1) - 0.3) / 0.2
    torch.testing.assert_close(last, network.maps(colour))
    last.sum().backward()
    assert all(p.grad is not None for p in found.parameters())


def test_random_weights_are_those_of_the_run(tmp_path):
    path = describe(tmp_path / 'small.py')
    digests = []
    for run in (0, 0, 1):
        torch.manual_seed(run)
        digests.append(build(f'random:{path}').encoder.digest)
    assert digests[0] == digests[1] != digests[2]
    assert build(f'random:{path}', seed=7).encoder.digest == (
        load_encoder(f'random:{path}', seed=7).digest
    )


def test_other_weights_or_images_are_refused(tmp_path):
    path = describe(tmp_path / 'small.py')
    network = load_encoder(f'random:{path}', seed=4).backbone
    torch.save(network.state_dict(), tmp_path / 'small.pth')
    source, digest = f'{path}:{tmp_path / "small.pth"}', None
    digest = weights_digest(tmp_path / 'small.pth')
    build(source, digest=digest)
    torch.save(dict(state_dict=network.state_dict()), tmp_path / 'small.pth')
    with pytest.raises(UserError, match='have changed'):
        build(source, digest=digest)
    grey = describe(tmp_path / 'grey.py', 'channels=1, normalisation="unit"')
    grey.write_text(grey.read_text().replace('depth=18', 'depth=18, in_channels=1'))
    with pytest.raises(UserError, match='takes grey pictures, the images have 3'):
        build(f'random:{grey}', in_channels=3)
