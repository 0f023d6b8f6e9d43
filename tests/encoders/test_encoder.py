import sys

import pytest
import torch

import medssl_mm
from medssl_mm.encoders import load_encoder
from medssl_mm.errors import InstallError, UserError


@pytest.fixture(scope='module')
def encoder():
    return load_encoder('random:resnet18')


def test_features_are_the_mean_of_the_last_map(encoder):
    images = torch.rand(2, 3, 64, 64)
    last = encoder.backbone(images)[0]
    torch.testing.assert_close(encoder(images), last.mean((2, 3)))
    torch.testing.assert_close(encoder.maps(images), last)


def test_maps_at_other_places(encoder):
    images = torch.rand(1, 3, 64, 64)
    early = encoder.maps(images, 'stage1')
    network = encoder.backbone
    x = network.maxpool(network.relu(network.norm1(network.conv1(images))))
    torch.testing.assert_close(early, network.layer1(x))
    with pytest.raises(UserError, match="no place 'stage9'; did you mean stage"):
        encoder.maps(images, 'stage9')


def test_is_frozen_and_lets_gradients_to_the_image(encoder):
    assert not any(part.training for part in encoder.modules())
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    encoder(encoder.preprocessing.normalise(images)).sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None for p in encoder.parameters())


def test_random_weights_follow_the_seed():
    first, again, other = (load_encoder('random:resnet18', s) for s in (0, 0, 1))
    assert first.digest == again.digest != other.digest
    # The residual branches take part.
    assert first.backbone.layer1[0].bn2.weight.any()


@pytest.mark.parametrize(
    'model', ['resnet18', 'tf_efficientnet_lite0', 'mobilenetv3_small_050']
)
def test_whole_networks_of_timm(model):
    """What timm returns before its classifier; with zeroed branches put right."""
    encoder = load_encoder(f'random:timm/{model}')
    images = torch.rand(1, 3, 224, 224)
    inner = encoder.backbone.timm_model
    torch.testing.assert_close(encoder.maps(images), inner(images))
    places = encoder.places
    for place, number in places.numbers.items():
        found = encoder.maps(images, place)
        assert found.shape[1] == places.channels[number]
    strides = list(places.strides.values())
    assert strides == sorted(strides)
    for part in encoder.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            assert part.weight.any()


@pytest.mark.parametrize(
    'source', ['random:efficientnet-lite0', 'random:timm/resnet18']
)
def test_without_timm_the_extra_is_named(monkeypatch, source):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(InstallError, match=r'needs timm; install medssl_mm\[models\]'):
        load_encoder(source)
    assert load_encoder('random:resnet18').digest  # others need none


def test_weights_of_timm_and_of_a_pretraining(tmp_path):
    """The names of timm alone, safetensors too; a grey stem seen by colour."""
    from safetensors.torch import save_file

    network = load_encoder('random:timm/resnet18', seed=5)
    plain = {
        name.removeprefix('timm_model.'): value
        for name, value in network.backbone.state_dict().items()
    }
    save_file(plain, tmp_path / 'a.safetensors')
    torch.save(plain, tmp_path / 'a.pth')
    for name in ('a.safetensors', 'a.pth'):
        found = load_encoder(f'timm/resnet18:{tmp_path / name}')
        assert found.digest == network.digest
    (tmp_path / 'a.safetensors').write_bytes(b'1234')
    with pytest.raises(UserError, match='a.safetensors: cannot be read as safetensors'):
        load_encoder(f'timm/resnet18:{tmp_path / "a.safetensors"}')

    colour = load_encoder('random:moco_resnet18-64', seed=1).backbone.state_dict()
    grey = {f'backbone.{name}': value for name, value in colour.items()}
    grey['backbone.conv1.weight'] = colour['conv1.weight'].sum(1, keepdim=True)
    torch.save(dict(state_dict=grey), tmp_path / 'b.pth')
    found = load_encoder(f'moco_resnet18-64:{tmp_path / "b.pth"}')
    images = torch.rand(2, 1, 64, 64).expand(-1, 3, -1, -1)
    torch.testing.assert_close(
        found(images), load_encoder('random:moco_resnet18-64', seed=1)(images)
    )


def test_weights_of_another_network_are_refused(tmp_path, encoder):
    torch.save(encoder.backbone.state_dict(), tmp_path / 'r18.pth')
    with pytest.raises(UserError, match='looks like ResNet-18, model is ResNet-50'):
        load_encoder(f'resnet50:{tmp_path / "r18.pth"}')


def test_two_lines_are_enough():
    assert medssl_mm.load_encoder is load_encoder
    with pytest.raises(AttributeError, match='no attribute .load_encodr.'):
        medssl_mm.load_encodr  # noqa: B018
