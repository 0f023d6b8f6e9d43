import argparse
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS

from medssl_mm.checkpoint_features import (
    SUBSETS,
    EncoderFeatures,
    ImageSubsets,
    Weights,
    add_arguments,
    check_arguments,
    check_no_shared_patients,
    open_source,
    parse_weights,
    read_labels,
    sources_by_name,
)
from medssl_mm.engine.hooks.calibrate_batch_norm_hook import (
    calibrate_batch_norm,
    calibration_batches,
)
from medssl_mm.engine.pretrained import PretrainedBackbone
from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS
from tests.analysis import toy


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Folder of images that stay."""
    return toy.write_images(tmp_path_factory.mktemp('images'))


@pytest.fixture
def source(tmp_path, images):
    config = toy.write_config(tmp_path / 'config.py', images)
    return EncoderFeatures(ImageSubsets(config), tmp_path / 'cache')


def stored(images, subset):
    return torch.stack(
        [
            torch.from_numpy(np.load(images / f'{subset}-{n}.npy')).float()
            for n in range(toy.SIZES[subset])
        ]
    )


@torch.no_grad()
def by_hand(model, images):
    """Mean over positions after every part, written out."""
    level = model.maxpool(model.relu(model.norm1(model.conv1((images - 0.3) / 2))))
    result = dict(stem=level.mean((2, 3)))
    for stage in range(1, 5):
        for number, block in enumerate(getattr(model, f'layer{stage}')):
            level = block(level)
            result[f'stage{stage}.{number}'] = level.mean((2, 3))
        result[f'stage{stage}'] = level.mean((2, 3))
    return result


@pytest.mark.parametrize('subset', ['train', 'test'])
def test_features_are_those_of_the_plain_images(tmp_path, images, source, subset):
    """In evaluation mode; without the augmentation of the training images."""
    path, model = toy.write_checkpoint(tmp_path / 'a.pth')
    expected = by_hand(model, stored(images, subset))
    for kind in ('stages', 'blocks'):
        found = source.features(Weights('a', path), subset, kind)
        assert found.image_ids == tuple(
            f'{subset}-{n}' for n in range(toy.SIZES[subset])
        )
        assert set(found.places) == {
            name for name in expected if ('.' in name) == (kind == 'blocks')
        }
        for place in found.places:
            torch.testing.assert_close(
                torch.from_numpy(np.array(found.read(place))),
                expected[place],
                rtol=1e-4,
                atol=1e-5,
            )


@pytest.mark.parametrize('kind', ['pretraining', 'segmentation'])
def test_kinds_of_checkpoints(tmp_path, source, kind):
    first, _ = toy.write_checkpoint(tmp_path / 'a.pth')
    second, _ = toy.write_checkpoint(tmp_path / 'b.pth', kind=kind)
    one, other = (source.features(Weights('x', p), 'val') for p in (first, second))
    assert np.array_equal(one.read('stage4'), other.read('stage4'))


def test_second_run_touches_no_image(tmp_path):
    root = toy.write_images(tmp_path / 'images')
    config = toy.write_config(tmp_path / 'config.py', root)
    path, _ = toy.write_checkpoint(tmp_path / 'a.pth')
    both = [Weights('a', path), Weights('random', None, 0)]
    first = EncoderFeatures(ImageSubsets(config), tmp_path / 'cache')
    before = [
        [np.array(first.features(w, s).read('stage2')) for s in SUBSETS] for w in both
    ]
    toy.delete_images(root)

    second = EncoderFeatures(ImageSubsets(config), tmp_path / 'cache')
    for weights, arrays in zip(both, before):
        for name, values in zip(SUBSETS, arrays):
            again = second.features(weights, name).read('stage2')
            assert np.array_equal(again, values)
    # The same content elsewhere is the same checkpoint.
    (tmp_path / 'copy.pth').write_bytes(path.read_bytes())
    second.features(Weights('copy', tmp_path / 'copy.pth'), 'test')
    # Labels play no part.
    EncoderFeatures(
        ImageSubsets(toy.write_config(tmp_path / 'other.py', root)), tmp_path / 'cache'
    ).features(both[0], 'train')

    # All that features depend on does: these need the images.
    other, _ = toy.write_checkpoint(tmp_path / 'b.pth', seed=1)
    for weights, kind in (
        (Weights('b', other), 'stages'),
        (Weights('random', None, 1), 'stages'),
        (both[0], 'blocks'),
    ):
        with pytest.raises(FileNotFoundError):
            second.features(weights, 'test', kind)
    changed = toy.write_config(tmp_path / 'config.py', root)
    changed.test_dataloader.dataset.pipeline = ['another']
    with pytest.raises(FileNotFoundError):
        EncoderFeatures(ImageSubsets(changed), tmp_path / 'cache').features(
            both[0], 'test'
        )
    changed = toy.write_config(tmp_path / 'config.py', root)
    changed.model.data_preprocessor.std = [1.0]
    with pytest.raises(FileNotFoundError):
        EncoderFeatures(ImageSubsets(changed), tmp_path / 'cache').features(
            both[0], 'test'
        )
    # What failed has left nothing behind that would be taken.
    assert not list((tmp_path / 'cache').glob('.*'))


def test_random_weights_are_calibrated(tmp_path, images, source):
    """As the hook does it, on training images without augmentation."""
    first, other = (source.features(Weights(str(n), None, n), 'test') for n in (0, 1))
    model = torch.nn.Module()
    model.data_preprocessor = lambda batch, training: dict(
        inputs=(batch['inputs'] - 0.3) / 2
    )
    torch.manual_seed(0)
    model.backbone = MODELS.build(toy.backbone())
    model.backbone.zero_init_residual = False
    torch.manual_seed(0)
    PretrainedBackbone()(model.backbone)
    loader = calibration_batches(
        source.images.subset('train').dataset,
        8,
        20,
        collate_fn=lambda samples: dict(
            inputs=torch.stack([sample['inputs'] for sample in samples])
        ),
    )
    assert len(loader) == 5
    assert calibrate_batch_norm(model, model.backbone, loader) == 20
    model.backbone.eval()
    expected = by_hand(model.backbone, stored(images, 'test'))
    for place in first.places:
        torch.testing.assert_close(
            torch.from_numpy(np.array(first.read(place))),
            expected[place],
            rtol=1e-3,
            atol=1e-4,
        )
    assert not np.allclose(first.read('stage4'), other.read('stage4'))


def test_global_generators_stay(tmp_path, source):
    state = torch.get_rng_state()
    source.features(Weights('random', None, 3), 'val')
    assert torch.equal(torch.get_rng_state(), state)


def test_fractions_are_those_of_the_data_set(source):
    ids = source.images.subset('train').image_ids
    assert len(ids) == 40
    for fraction, seed in ((0.5, 0), (0.5, 1), (0.1, 0)):
        wanted = toy.ToyFileImages(
            source.images.subset('train').dataset.root, 'train', fraction, seed
        )
        rows = source.images.rows_of_fraction(fraction, seed)
        assert [ids[row] for row in rows] == [
            wanted.get_data_info(i)['image_id'] for i in range(len(wanted))
        ]
    assert len(source.images.rows_of_fraction(1)) == 40
    assert source.images.fraction_of_config() == (1.0, None)
    # The features are of all images, whatever the config says.
    source.images.config.train_dataloader.dataset.update(fraction=0.1, fraction_seed=5)
    fresh = EncoderFeatures(ImageSubsets(source.images.config), source.cache)
    assert fresh.images.fraction_of_config() == (0.1, 5)
    assert len(fresh.images.subset('train').image_ids) == 40


def test_wrapped_data_sets(source):
    """A wrapper that repeats shows each image once all the same."""
    inner = source.images.config.train_dataloader.dataset
    source.images.config.train_dataloader.dataset = dict(
        type='mmengine.RepeatDataset', times=3, dataset=inner
    )
    assert len(source.images.subset('train').image_ids) == 40


def test_labels(source):
    labels = read_labels(source.images.subset('train'))
    assert labels.multi_label and labels.classes == toy.CLASSES
    assert labels.targets.shape == (40, 3) and labels.targets[:, 2].sum() == 1
    for row, present in enumerate(source.images.subset('train').raw_labels):
        assert np.flatnonzero(labels.targets[row]).tolist() == present


def test_single_labels_some_unknown(tmp_path, images):
    config = toy.write_config(tmp_path / 'config.py', images, 'single')
    subset = ImageSubsets(config).subset('val')
    partly = subset.__class__(
        **{**vars(subset), 'raw_labels': (-1, None, *subset.raw_labels[2:])}
    )
    labels = read_labels(partly)
    assert not labels.multi_label and labels.classes == ('dark', 'bright')
    assert labels.known.tolist() == list(range(2, 16))
    assert (labels.targets.sum(1) == 1).all()
    assert labels.targets[:, 1].tolist() == list(subset.raw_labels[2:])


@pytest.mark.parametrize('kind', ['unknown', 'none'])
def test_subset_without_labels(tmp_path, images, kind):
    config = toy.write_config(tmp_path / 'config.py', images, kind)
    source = EncoderFeatures(ImageSubsets(config), tmp_path / 'cache')
    with pytest.raises(UserError, match=r'val subset has no labels \(16'):
        read_labels(source.images.subset('val'))
    # Features need none.
    source.features(Weights('random', None), 'val')


def test_damaged_cache_is_computed_again(tmp_path, source):
    notes = []
    source.note = notes.append
    weights = Weights('random', None, 0)
    found = source.features(weights, 'val')
    before = np.array(found.read('stage3'))
    path = found.folder / 'stage3.npy'
    path.write_bytes(path.read_bytes()[:-100])
    again = source.features(weights, 'val')
    assert np.array_equal(again.read('stage3'), before)
    assert len(notes) == 1 and 'damaged' in notes[0]
    assert str(found.folder) in notes[0]


def test_images_imported_anew_are_not_taken_from_the_cache(source):
    """An image set tells the content of its images without reading them."""

    def content(digest):
        return SimpleNamespace(
            infos=lambda: [
                SimpleNamespace(image_id=name, content_sha256=digest)
                for name in source.images.subset('val').image_ids
            ]
        )

    folders = []
    for digest in ('a', 'a', 'b'):
        source.images.subset('val').dataset.store = content(digest)
        found = source.features(Weights('random:0', None), 'val')
        folders.append(found.folder)
    assert folders[0] == folders[1] != folders[2]


def test_mismatching_network(tmp_path, source):
    deep, _ = toy.write_checkpoint(tmp_path / 'deep.pth', depth=34)
    source.images.config.model.backbone.depth = 50
    with pytest.raises(UserError, match='looks like ResNet-34, model is ResNet-50'):
        source.features(Weights('deep', deep), 'val')
    assert not list((tmp_path / 'cache').iterdir())


def test_broken_weights(tmp_path, source):
    path, model = toy.write_checkpoint(tmp_path / 'a.pth')
    with torch.no_grad():
        model.layer3[0].conv1.weight.fill_(float('nan'))
    torch.save(model.state_dict(), path)
    with pytest.raises(
        UserError, match=r'a\.pth holds 1 weights .*layer3\.0\.conv1\.weight'
    ):
        source.features(Weights('a', path), 'val')
    # Finite weights may have features that are not.
    with torch.no_grad():
        model.layer3[0].conv1.weight.fill_(3e38)
    torch.save(model.state_dict(), path)
    with pytest.raises(
        UserError, match='features of stage3 are not finite for image val-0'
    ):
        source.features(Weights('a', path), 'val')


def test_backbone_without_stages(tmp_path, images):
    config = toy.write_config(
        tmp_path / 'config.py', images, backbone=dict(type='mmpretrain.LeNet5')
    )
    with pytest.raises(UserError, match='LeNet5 .* its stages are not known.* ResNet'):
        EncoderFeatures(ImageSubsets(config), tmp_path / 'cache').features(
            Weights('random', None), 'val'
        )


def test_a_network_of_timm_without_timm(source, monkeypatch):
    source.images.config.model.backbone = dict(
        type='mmpretrain.TIMMBackbone', model_name='resnet18', features_only=True
    )
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(UserError, match=r'config.*needs timm; install .*\[models\]'):
        source.features(Weights('random', None), 'test')


def test_config_of_another_kind(source):
    source.images.config.val_dataloader = None
    with pytest.raises(UserError, match='no val_dataloader.*classification'):
        source.images.subset('val')
    source.images.config.model = None
    with pytest.raises(UserError, match='no model.backbone'):
        source.features(Weights('random', None), 'test')


def test_unknown_type(source):
    source.images.config.model.backbone.type = 'Resnext3000'
    with pytest.raises(UserError, match='Resnext3000.*check the spelling'):
        source.features(Weights('random', None), 'test')


@DATASETS.register_module(force=True)
class ToyWithoutFraction(toy.ToyFileImages):
    def __init__(self, root, subset, pipeline=(), labels='multi'):
        super().__init__(root, subset, pipeline=pipeline, labels=labels)


def test_data_set_without_fraction(source):
    source.images.config.train_dataloader.dataset.type = 'ToyWithoutFraction'
    assert len(source.images.rows_of_fraction(1)) == 40
    with pytest.raises(UserError, match='takes no fraction.*--fractions out'):
        source.images.rows_of_fraction(0.5, 0)


def test_shared_patients(source):
    subsets = [source.images.subset(name) for name in SUBSETS]
    check_no_shared_patients(subsets)
    other = subsets[2].__class__(**{**vars(subsets[2]), 'patients': ('train-p3', 'x')})
    with pytest.raises(
        UserError, match='in the train and in the test subset, e.g. train-p3'
    ):
        check_no_shared_patients([subsets[0], subsets[1], other])


def test_names_of_checkpoints(tmp_path):
    file = tmp_path / 'a=b.pth'
    file.touch()
    found = parse_weights([f'moco={file}', 'random', 'random:3', 'scratch=random:7'])
    assert [(w.name, w.path, w.seed) for w in found] == [
        ('moco', file, 0),
        ('random', None, 0),
        ('random:3', None, 3),
        ('scratch', None, 7),
    ]
    assert [w.source for w in found] == [str(file), 'random:0', 'random:3', 'random:7']


def test_a_name_for_several_checkpoints():
    found = parse_weights(
        ['a=random', 'b=random', 'a=random:4', 'a=random'], several=True
    )
    assert [(w.name, w.number, w.seed) for w in found] == [
        ('a', 0, 0),
        ('b', 0, 0),
        ('a', 1, 4),
        ('a', 2, 0),
    ]
    assert sources_by_name(found) == {
        'a': ['random:0', 'random:4', 'random:0'],
        'b': ['random:0'],
    }


@pytest.mark.parametrize(
    'texts, message',
    [
        (['moco=absent.pth'], r'checkpoint absent.pth \(moco\) does not exist'),
        (['absent.pth'], "NAME=PATH, got 'absent.pth'"),
        (['=random'], "NAME=PATH, got '=random'"),
        (['random', 'random'], 'the name random stands for several'),
        (['x=random:y'], 'checkpoint random:y'),
    ],
)
def test_wrong_names_of_checkpoints(texts, message):
    with pytest.raises(UserError, match=message):
        parse_weights(texts)


def parsed(*options):
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_arguments(parser)
    return parser.parse_args(options)


def test_arguments(tmp_path):
    args = parsed('configs/x/set.py')
    check_arguments(args, 'probe', ['probe.json'])
    assert args.out == Path('work_dirs/set/probe')
    (tmp_path / 'probe.json').touch()
    with pytest.raises(UserError, match='probe.json exists; .*--overwrite'):
        check_arguments(parsed('c.py', '--out', str(tmp_path)), 'probe', ['probe.json'])
    check_arguments(
        parsed('c.py', '--out', str(tmp_path), '--overwrite'), 'probe', ['probe.json']
    )
    with pytest.raises(UserError, match='--batch-size must be positive'):
        check_arguments(parsed('c.py', '--batch-size', '0'), 'probe', [])
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match='torch sees no GPU'):
            open_source(parsed('c.py', '--device', 'cuda'), None, None)
