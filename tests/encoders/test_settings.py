import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl_mm import encoders
from medssl_mm.checkpoint_features import parse_weights
from medssl_mm.encoders import encoder_names, load_encoder, read_settings
from medssl_mm.errors import UserError
from tests.converters import originals

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize('name', encoder_names())
def test_every_description(name):
    lines = (ROOT / 'configs' / 'encoders' / f'{name}.py').read_text().splitlines()
    assert len(lines) <= 20
    assert lines[0].startswith('# ')
    settings = read_settings(name)
    assert settings.name == name
    assert settings.file_names == () or settings.source
    encoder = load_encoder(f'random:{name}')  # compares embedding_length
    size = min(settings.preprocessing.size, 64)
    images = torch.rand(2, settings.preprocessing.channels, size, size)
    assert encoder(images).shape == (2, settings.embedding_length)


def test_a_network_of_timm_brings_its_own_preprocessing():
    settings = read_settings('timm/tf_efficientnet_lite0')
    assert settings.embedding_length == 1280
    step = settings.preprocessing
    assert (step.size, step.resize_to, step.mean) == (224, 256, (0.5, 0.5, 0.5))
    with pytest.raises(
        UserError, match="no network 'resnet18x'; did you mean resnet18"
    ):
        read_settings('timm/resnet18x')


def test_pictures_that_timm_makes_square_in_other_ways():
    """Both sides scaled are 'exact' here; padding is refused, with what to do."""
    step = read_settings('timm/convnext_tiny.fb_in22k_ft_in1k_384').preprocessing
    assert (step.size, step.resize_mode, step.resize_to) == (384, 'exact', 384)
    assert read_settings('timm/resnet18').preprocessing.resize_mode == 'short'
    with pytest.raises(
        UserError, match="crop_mode='border'; here .* center or squash.*encoder = dict"
    ):
        read_settings('timm/deepseek_vit_412m')


def write_description(folder, **more):
    text = f'encoder = dict(**{more!r})'
    path = folder / 'mine.py'
    path.write_text(text, encoding='utf-8')
    return path


SMALL = dict(
    title='Mine',
    backbone=dict(type='mmpretrain.ResNet', depth=18, base_channels=8),
    embedding_length=64,
)


def test_a_description_of_ones_own(tmp_path):
    path = write_description(tmp_path, **SMALL)
    encoder = load_encoder(f'random:{path}')
    assert encoder.settings.name == 'mine'
    assert encoder(torch.rand(1, 3, 32, 32)).shape == (1, 64)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(embedding_lenght=64), 'mine.py: embedding_lenght: unknown key.*did you'),
        (dict(embedding_length='many'), 'embedding_length: .*got .many.'),
        (dict(preprocessing=dict(sizee=1)), "preprocessing.sizee: unknown key 'sizee'"),
    ],
)
def test_a_faulty_description(tmp_path, change, message):
    path = write_description(tmp_path, **{**SMALL, **change})
    with pytest.raises(UserError, match=message):
        read_settings(path)


def test_a_wrong_length_is_noticed(tmp_path):
    path = write_description(tmp_path, **{**SMALL, 'embedding_length': 63})
    with pytest.raises(
        UserError, match='gives 64 numbers, its embedding_length says 63'
    ):
        load_encoder(f'random:{path}')


def test_published_files_are_found_and_compared(tmp_path, monkeypatch):
    """In the folders of MEDSSL_WEIGHTS; not another file of that name."""
    path = write_description(tmp_path, **SMALL)
    network = load_encoder(f'random:{path}', seed=3).backbone
    folder = tmp_path / 'weights'
    folder.mkdir()
    torch.save(dict(state_dict=network.state_dict()), folder / 'mine-1a2b.pth')
    digest = hashlib.sha256((folder / 'mine-1a2b.pth').read_bytes()).hexdigest()
    known = dict(file_names=['mine-*.pth'], source='the shelf', sha256=digest)
    path = write_description(tmp_path, **SMALL, **known)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r'weights of mine \(mine-\*.pth\).*the shelf'):
        load_encoder(path)
    monkeypatch.setenv('MEDSSL_WEIGHTS', f'{tmp_path / "none"}:{folder}')
    encoder = load_encoder(path)
    for name, tensor in network.state_dict().items():
        assert encoder.backbone.state_dict()[name].equal(tensor)
    torch.save(dict(state_dict=network.state_dict(), x=1), folder / 'mine-1a2b.pth')
    with pytest.raises(UserError, match='not the file that mine was published as'):
        load_encoder(path)


def test_weights_inside_a_package(tmp_path, monkeypatch):
    package = tmp_path / 'wheel_of_weights'
    (package / 'models').mkdir(parents=True)
    (package / '__init__.py').touch()
    (package / 'models' / 'net-1.pth').touch()
    monkeypatch.syspath_prepend(tmp_path)
    settings = encoders.EncoderSettings(
        name='x', **SMALL, file_names=['package:wheel_of_weights/models/net-*.pth']
    )
    assert encoders.find_weights(settings) == package / 'models' / 'net-1.pth'
    absent = settings.model_copy(update=dict(file_names=('package:no_such/x.pth',)))
    with pytest.raises(UserError, match='package:no_such/x.pth'):
        encoders.find_weights(absent)


def test_a_checkpoint_of_tensorflow_is_named_in_every_way(tmp_path):
    """As tools/convert_checkpoint.py takes it: one digest, one network."""
    network = originals.network_of('resnet50')
    name = originals.write_bundle(
        tmp_path / 'ResNet50_1x/model.ckpt-225206',
        originals.tensorflow_variables(network),
    )
    paths = [name, name.parent, f'{name}.index', f'{name}.data-00001-of-00002']
    sources = [encoders.parse_source(f'simclr-v1:{path}') for path in paths]
    assert {source.path for source in sources} == {Path(f'{name}.index')}
    assert encoders.seen_by(sources[0]).unknown
    [weights] = parse_weights([f'mine=simclr-v1:{name.parent}'])
    assert encoders.weights_digest(encoders.parse_source(weights.encoder).path)
    found = load_encoder(f'simclr-v1:{name}').backbone.state_dict()
    assert torch.equal(found['layer4.2.conv3.weight'], network.layer4[2].conv3.weight)
    originals.write_bundle(name.parent / 'other', {'a': np.zeros(1, np.float32)})
    with pytest.raises(UserError, match=r'holds 2 checkpoints.*name one, such as .*'):
        load_encoder(f'simclr-v1:{name.parent}')


def test_a_folder_with_one_file_of_weights(tmp_path):
    network = load_encoder('random:resnet18', seed=2)
    torch.save(network.backbone.state_dict(), tmp_path / 'pytorch_model.bin')
    assert load_encoder(f'resnet18:{tmp_path}').digest == network.digest
    (tmp_path / 'pytorch_model.bin').unlink()
    with pytest.raises(UserError, match='is a folder without weights: expected model'):
        load_encoder(f'resnet18:{tmp_path}')


@pytest.mark.parametrize(
    'source, message',
    [
        ('resnet19', "no encoder is called 'resnet19'; did you mean resnet18"),
        ('resnet18:none.pth', 'weights none.pth of resnet18 do not exist'),
        ('random:none', "no encoder is called 'none'"),
    ],
)
def test_unknown_sources(source, message):
    with pytest.raises(UserError, match=message):
        load_encoder(source)
