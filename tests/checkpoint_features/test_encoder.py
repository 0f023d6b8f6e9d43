"""Encoders by name: their own network and preprocessing, on the same images."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS

from medssl_mm.backbones import set_output_stride
from medssl_mm.checkpoint_features import (
    ALL,
    EncoderFeatures,
    ImageSubsets,
    Weights,
    config_of_images,
    parse_weights,
)
from medssl_mm.encoders import load_encoder
from medssl_mm.engine.hooks.calibrate_batch_norm_hook import (
    calibrate_batch_norm,
    calibration_batches,
)
from medssl_mm.errors import UserError
from medssl_mm.store import open_store
from tests.analysis import toy
from tests.datasets.images import make_picture, write_image_set

DESCRIPTION = """encoder = dict(
    title='Small',
    backbone=dict(type='mmpretrain.ResNet', depth=18, base_channels=8),
    embedding_length=64,
    preprocessing=dict({preprocessing}),
)
"""


def describe(path, preprocessing='size=24, resize_to=28, normalisation="histogram"'):
    text = DESCRIPTION.format(preprocessing=preprocessing)
    path.write_text(text, encoding='utf-8')
    return path


def open_images(root, split='made'):
    settings = dict(
        type='medssl_mm.ClassificationImages', data_root=str(root), split=split
    )
    return ImageSubsets(config_of_images(settings, 'made'))


@pytest.fixture
def root(tmp_path):
    write_image_set(tmp_path / 'set', patients=8, channels=3)
    return tmp_path / 'set'


@pytest.fixture
def weights(tmp_path):
    """Weights of a small encoder that no random start has."""
    path = describe(tmp_path / 'small.py')
    network = load_encoder(f'random:{path}', seed=4).backbone
    torch.save(network.state_dict(), tmp_path / 'small.pth')
    return Weights('small', encoder=f'{path}:{tmp_path / "small.pth"}')


@pytest.mark.parametrize('channels', [1, 3])
def test_each_picture_goes_through_the_preprocessing(tmp_path, channels, weights):
    write_image_set(tmp_path / 'x', patients=8, channels=channels)
    source = EncoderFeatures(open_images(tmp_path / 'x'), tmp_path / 'cache')
    found = source.features(weights, ALL)
    encoder = load_encoder(weights.encoder)
    store = open_store(tmp_path / 'x', 'classification')
    assert list(found.image_ids) == list(store.image_ids)
    for row, values in enumerate(found.read('stage4')):
        images = encoder.preprocessing(store.read(row))[None]
        torch.testing.assert_close(
            torch.from_numpy(np.array(values))[None],
            encoder(images),
            rtol=1e-3,
            atol=1e-4,
        )
    assert found.places == ('stem', 'stage1', 'stage2', 'stage3', 'stage4')


def test_the_same_pictures_are_the_same_features(tmp_path, root, weights, monkeypatch):
    """Of whatever split; of another preprocessing or set they are others."""
    cache = tmp_path / 'cache'
    first = EncoderFeatures(open_images(root), cache).features(weights, ALL)
    (root).rename(tmp_path / 'moved')
    again = EncoderFeatures(open_images(tmp_path / 'moved', split=None), cache)
    monkeypatch.setattr(type(again), '_compute', None)  # what is computed fails
    assert again.features(weights, ALL).folder == first.folder
    describe(tmp_path / 'small.py', 'size=24')
    with pytest.raises(TypeError):
        again.features(weights, ALL)
    describe(tmp_path / 'small.py')
    with pytest.raises(TypeError):
        again.features(Weights('r', encoder=f'random:{tmp_path / "small.py"}'), ALL)


def test_random_encoders_are_calibrated_on_training_pictures(tmp_path, root):
    path = describe(tmp_path / 'small.py', 'size=32')
    found = EncoderFeatures(open_images(root), tmp_path / 'cache').features(
        Weights('r', seed=2, encoder=f'random:{path}'), 'test'
    )
    encoder = load_encoder(f'random:{path}', seed=2)
    store = open_store(root, 'classification')
    pictures = {
        name: encoder.preprocessing(store.read(row))
        for row, name in enumerate(store.image_ids)
    }
    training = [pictures[f'p{p}-{n}'] for p in range(2, 8) for n in (0, 1)]
    model = torch.nn.Module()
    model.data_preprocessor = lambda batch, training: dict(inputs=batch)
    batches = calibration_batches(training, 32, 20)
    assert calibrate_batch_norm(model, encoder.backbone, batches) == 21
    encoder.eval()
    expected = encoder(torch.stack([pictures['p0-0'], pictures['p0-1']]))
    torch.testing.assert_close(
        torch.from_numpy(np.array(found.read('stage4'))), expected, rtol=1e-3, atol=1e-4
    )


def test_random_encoders_may_stay_as_they_began(tmp_path, root):
    path = describe(tmp_path / 'small.py', 'size=32')
    weights = Weights('r', seed=2, encoder=f'random:{path}')
    images, cache = open_images(root), tmp_path / 'cache'
    plain = EncoderFeatures(images, cache, calibration_batches=0)
    found = plain.features(weights, 'test')
    encoder = load_encoder(f'random:{path}', seed=2)
    store = open_store(root, 'classification')
    pictures = [store.read(store.index_of(name)) for name in found.image_ids]
    expected = encoder(torch.stack([encoder.preprocessing(p) for p in pictures]))
    torch.testing.assert_close(
        torch.from_numpy(np.array(found.read('stage4'))), expected, rtol=1e-3, atol=1e-4
    )
    calibrated = EncoderFeatures(images, cache).features(weights, 'test')
    assert calibrated.folder != found.folder


def test_grey_encoder_of_colour_pictures(tmp_path, root):
    path = describe(tmp_path / 'grey.py', 'channels=1, normalisation="unit", size=16')
    text = path.read_text().replace('depth=18', 'depth=18, in_channels=1')
    path.write_text(text)
    source = EncoderFeatures(open_images(root), tmp_path / 'cache')
    with pytest.raises(UserError, match='image p.-.: the encoder takes grey pictures'):
        source.features(Weights('g', encoder=f'random:{path}'), 'test')


@DATASETS.register_module(force=True)
class ToyPictures(toy.ToyFileImages):
    """As a host's data set loads pictures: blue first."""

    def __getitem__(self, index):
        assert self.pipeline == [dict(type='LoadImageFromFile')]
        return dict(img=make_picture(index)[..., ::-1])


def test_data_sets_of_hosts(tmp_path):
    images = toy.write_images(tmp_path / 'images')
    config = toy.write_config(tmp_path / 'config.py', images)
    path = describe(tmp_path / 'small.py', 'size=16')
    weights = Weights('r', encoder=f'random:{path}')
    with pytest.raises(UserError, match='ToyFileImages gives no picture'):
        EncoderFeatures(ImageSubsets(config), tmp_path / 'cache').features(
            weights, 'test'
        )
    for name in ('train', 'test'):
        config[f'{name}_dataloader'].dataset.type = 'ToyPictures'
    config.test_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='PackInputs'),
    ]
    images = ImageSubsets(config)
    step = load_encoder(f'random:{path}').preprocessing
    found = images.pictures(images.subset('test'), step)[5]['inputs']
    assert np.array_equal(found.permute(1, 2, 0).numpy(), step.resize(make_picture(5)))


def test_an_image_set_has_no_network(tmp_path, root):
    source = EncoderFeatures(open_images(root), tmp_path / 'cache')
    with pytest.raises(UserError, match='made has no model.backbone; .*NAME=ENCODER'):
        source.features(Weights('random'), 'test')


def test_names_of_encoders(tmp_path):
    path = describe(tmp_path / 'small.py')
    file = tmp_path / 'w.pth'
    file.touch()
    found = parse_weights(
        [f'a=resnet18:{file}', 'b=random:resnet50', f'c=random:{path}:7', f'd={file}']
    )
    assert [(w.encoder, w.seed, w.path) for w in found] == [
        (f'resnet18:{file}', 0, None),
        ('random:resnet50', 0, None),
        (f'random:{path}', 7, None),
        (None, 0, file),
    ]
    assert [w.source for w in found[:3]] == [
        f'resnet18:{file}',
        'random:resnet50:0',
        f'random:{path}:7',
    ]


@pytest.mark.parametrize(
    'text, message',
    [
        (
            'a=resnet81',
            r'checkpoint resnet81 \(a\) .*no encoder.*did you mean resnet18',
        ),
        ('a=resnet18:absent.pth', 'weights absent.pth of resnet18 do not exist'),
        ('a=mmselfsup_byol', 'weights of mmselfsup_byol .* are neither in'),
        ('resnet18', "given as NAME=PATH, got 'resnet18'; .*NAME=ENCODER"),
    ],
)
def test_wrong_encoders(text, message):
    with pytest.raises(UserError, match=message):
        parse_weights([text])


def test_workers_load_the_same_and_start_light(tmp_path, root):
    """What they are sent needs neither the engine nor a host's models."""
    path = describe(tmp_path / 'small.py', 'size=16')
    found = [
        EncoderFeatures(open_images(root), tmp_path / f'{n}', num_workers=n).features(
            Weights('r', encoder=f'random:{path}'), ALL
        )
        for n in (0, 1)
    ]
    assert np.array_equal(*(f.read('stage4') for f in found))
    code = (
        'import sys, medssl_mm.checkpoint_features.pictures\n'
        'print([m for m in sys.modules if m.startswith(("medssl_mm.engine", "mmpre"))])'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stderr


def test_networks_are_brought_to_one_stride(tmp_path, root):
    """Each stays the function that it is; what is pooled has as many positions."""
    coarse = describe(tmp_path / 'coarse.py')
    fine = tmp_path / 'fine.py'
    text = coarse.read_text(encoding='utf-8')
    fine.write_text(text.replace('depth=18', 'depth=18, strides=(1, 2, 2, 1)'))
    both = parse_weights([f'a=random:{coarse}', f'b=random:{fine}'])
    images = open_images(root)
    source = EncoderFeatures(images, tmp_path / 'cache', calibration_batches=0)
    before = [source.features(one, 'test') for one in both]
    assert [one.stride for one in before] == [32, 16]
    assert source.bring_to_stride(both) == 16
    found = [source.features(one, 'test') for one in both]
    assert [one.stride for one in found] == [16, 16]
    # The one that had it is not computed anew, the other one does not take its place.
    assert found[1].folder == before[1].folder
    assert found[0].folder != before[0].folder
    model = source.encoder(both[0]).build().eval()
    set_output_stride(model.backbone, 16)
    batch = next(iter(source._batches(source.encoder(both[0]), images.subset('test'))))
    with torch.no_grad():
        inputs = model.data_preprocessor(batch, False)['inputs']
        expected = model.backbone(inputs)[-1].mean((2, 3))
    values = torch.from_numpy(np.array(found[0].read('stage4')))[: len(expected)]
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(found[0].read('stage4'), before[0].read('stage4'))
    with pytest.raises(UserError, match='b has stride 16, .* cannot be made 32'):
        source.bring_to_stride(both, 32)
    assert source.normalisation(both[0]) == 'as initialised: 0 and 1'
