"""Every config loads, is described, and names types that exist."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import shipped

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / 'configs').rglob('*.py'))
LEAVES = shipped.leaves()
EXPERIMENTS = shipped.experiments()
NAMES = [experiment.name for experiment in EXPERIMENTS]
TABLES = sorted((ROOT / 'configs' / 'tables').glob('*.yaml'))
TRANSFER = [path for path in TABLES if path.stem.startswith('transfer_')]
TABLES = [path for path in TABLES if path not in TRANSFER]


def ids(paths):
    return [str(path.relative_to(ROOT / 'configs')) for path in paths]


@pytest.fixture(scope='module', autouse=True)
def _registries():
    import medssl_mm.registry  # noqa: F401


def load(path):
    from medssl_mm.engine import launch

    return launch.load_config(str(path))


def typed_dicts(content):
    """All dicts with a type, wherever they are in a config."""
    if isinstance(content, dict):
        if isinstance(content.get('type'), str):
            yield content
        content = list(content.values())
    if isinstance(content, (list, tuple)):
        for value in content:
            yield from typed_dicts(value)


def registries():
    from mmengine.registry import Registry

    from medssl_mm import registry

    return [
        value
        for value in vars(registry).values()
        if isinstance(value, Registry) and value.scope == 'medssl_mm'
    ]


def find_type(name):
    """Class of a type of this package, from whichever registry has it."""
    found = [registry.get(f'medssl_mm.{name}') for registry in registries()]
    return next((item for item in found if item is not None), None)


@pytest.mark.parametrize('path', CONFIGS, ids=ids(CONFIGS))
def test_loads(path):
    from mmengine.config import Config

    if set(shipped.NO_LEAVES) & set(path.parts) or path.name == 'default_runtime.py':
        Config.fromfile(str(path))  # may lack what only leaves have
    else:
        load(path)


@pytest.mark.parametrize('path', LEAVES, ids=ids(LEAVES))
def test_leaf_says_what_it_is_for(path):
    lines = path.read_text(encoding='utf-8').splitlines()
    assert lines[0].startswith(('#', '"""')), 'needs a header comment'
    assert len(lines[0].strip('#" ')) > 20
    assert not re.search(r'[A-Z ]', path.stem)
    assert len(lines) <= 25
    # These come from the data and the backbone.
    assert not re.search(r'num_classes|in_channels|num_channels', '\n'.join(lines))


def depth(path):
    """Length of the longest chain of files that a config inherits."""
    from mmengine.config import Config

    bases = Config._get_base_files(str(path))
    return 1 + max((depth(path.parent / base) for base in bases), default=-1)


@pytest.mark.parametrize('path', CONFIGS, ids=ids(CONFIGS))
def test_inheritance_is_shallow(path):
    assert depth(path) <= 3


@pytest.mark.parametrize('former', shipped.moved_configs(ROOT / 'configs/README.md'))
def test_former_configs_name_what_replaces_them(former):
    from medssl_mm.errors import UserError

    with pytest.raises(UserError, match='does not exist any more') as raised:
        load(ROOT / 'configs' / f'{former}.py')
    now = shipped.moved_configs(ROOT / 'configs/README.md')[former]
    assert str(raised.value).endswith(f'configs/{now}')


@pytest.mark.parametrize('experiment', EXPERIMENTS, ids=NAMES)
def test_own_types_exist(experiment):
    for entry in typed_dicts(experiment.load().to_dict()):
        scope, _, name = entry['type'].rpartition('.')
        if scope == 'medssl_mm':
            assert find_type(name) is not None, f'{entry["type"]} is unknown'
        else:
            # Types of ours without the prefix would be looked up in the host.
            assert scope or find_type(name) is None or (type_of_host(entry['type'])), (
                f'write medssl_mm.{name}'
            )


def type_of_host(name):
    """Whether an upstream registry has a type of this name too."""
    from mmengine import registry as roots
    from mmengine.registry import Registry

    return any(
        isinstance(root, Registry) and root.get(name) is not None
        for root in vars(roots).values()
    )


@pytest.mark.parametrize('experiment', EXPERIMENTS, ids=NAMES)
def test_leaf_can_be_trained(experiment):
    content = experiment.load()
    assert content.default_scope in ('mmselfsup', 'mmseg', 'mmpretrain')
    assert 'medssl_mm.registry' in content.custom_imports.imports
    assert not content.custom_imports.allow_failed_imports
    name = experiment.config.rpartition('/')[2].replace('.py', '')
    assert content.work_dir == f'work_dirs/{name}'
    for key in ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'):
        assert content.get(key), f'{key} is missing'
    if content.default_scope == 'mmseg':
        assert content.test_evaluator.type == 'medssl_mm.VolumeMetric'
        # Decisions must not be made on the test cases.
        subset = content.test_dataloader.dataset.get('subset')
        assert subset is None or subset != (
            content.train_dataloader.dataset.get('subset')
        )


def small_models():
    """One leaf per different ResNet-18 model: building them is cheap."""
    import json

    chosen = {}
    for experiment in EXPERIMENTS:
        if 'resnet18' in experiment.name:
            content = experiment.load()
            key = json.dumps(content.to_dict()['model'], sort_keys=True, default=str)
            chosen.setdefault(key, experiment)
    return list(chosen.values())


@pytest.mark.slow
def test_small_models_build():
    from mmengine.registry import MODELS as ROOT_MODELS
    from mmengine.registry import DefaultScope

    chosen = small_models()
    assert chosen
    for experiment in chosen:
        content = experiment.load()
        scope = content.default_scope
        with DefaultScope.overwrite_default_scope(scope):
            model = ROOT_MODELS.build(content.model)
        assert sum(p.numel() for p in model.parameters()) > 1e6, experiment
        if scope == 'mmseg':
            # One output per class of the data set.
            from medssl_mm.registry import DATASETS

            dataset = DATASETS.get(content.test_dataloader.dataset.type)
            classes = (
                content.test_dataloader.dataset.get('metainfo', {}).get('classes')
                or dataset.METAINFO['classes']
            )
            assert content.model.decode_head.num_classes == len(classes), experiment


def test_unet_follows_its_rules():
    """Down to a map of 4 x 4; losses halve with the resolution and count 1 in all."""
    from mmengine.registry import MODELS as ROOT_MODELS
    from mmengine.registry import DefaultScope

    (experiment,) = [one for one in EXPERIMENTS if one.stem.startswith('unet')]
    model = experiment.load().model
    sides = np.array([128 // np.prod(model.backbone.strides[:n]) for n in range(1, 7)])
    assert sides[-1] == 4
    heads = [model.decode_head, *model.auxiliary_head]
    for number in range(2):  # cross-entropy and Dice
        weights = [head.loss_decode[number].loss_weight for head in heads]
        assert sum(weights) == pytest.approx(1)
        assert weights == pytest.approx([weights[0] / 2**n for n in range(4)])
    with DefaultScope.overwrite_default_scope('mmseg'):
        built = ROOT_MODELS.build(model).eval()
    maps = built.backbone(torch.rand(1, 1, 128, 128))
    for head, side in zip([built.decode_head, *built.auxiliary_head], sides):
        assert head(maps).shape == (1, 4, side, side)


@pytest.mark.parametrize('path', TABLES, ids=ids(TABLES))
def test_tables_name_configs_that_exist(path):
    from medssl_mm.engine.reading import KINDS
    from medssl_mm.experiments import load_table

    table = load_table(path)
    names = [row.pretrain for row in table.rows if row.pretrain]
    names += [evaluation.config for evaluation in table.evaluations]
    for name in names:
        config, *data = name.split('+')
        assert (ROOT / config).is_file(), f'{path.name}: {name}'
        folders = (ROOT / config).parents
        for part in data:
            assert any(
                (place / kind / f'{part}.py').is_file()
                for place in folders
                for kind in KINDS
            )


INHERITED = [
    path
    for path in LEAVES
    if 'resnet18' in path.name and ('phantom' in path.name or 'mocov2-' in path.name)
]


@pytest.mark.parametrize('path', INHERITED, ids=ids(INHERITED))
def test_dependants_can_inherit(path, tmp_path):
    """A config elsewhere builds on ours: host types stay the host's."""
    if not (ROOT / 'medssl_mm/.mim/configs').exists():
        pytest.skip('the package is not installed: run tools/setup.sh')
    from mmengine.registry import MODELS, DefaultScope

    child = tmp_path / 'child.py'
    child.write_text(
        f"_base_ = ['medssl_mm::{path.relative_to(ROOT / 'configs')}']\n"
        "work_dir = 'elsewhere'\n"
    )
    content = load(child)
    parent = load(path)
    assert content.work_dir == 'elsewhere'
    assert content.model.to_dict() == parent.model.to_dict()
    with DefaultScope.overwrite_default_scope(content.default_scope):
        MODELS.build(content.model)


@pytest.mark.parametrize('path', TRANSFER, ids=ids(TRANSFER))
def test_transfer_tables_name_what_exists(path):
    from medssl_mm.encoders import read_settings
    from medssl_mm.experiments import load_transfer
    from medssl_mm.experiments.transfer_data import images_of

    table = load_transfer(path)
    for entry in table.encoders:
        read_settings(entry.encoder.removeprefix('random:'))
        if entry.checkpoint:  # work_dirs/CONFIG[+DATA]/epoch_N.pth
            config, *data = Path(entry.checkpoint).parent.name.split('+')
            assert list((ROOT / 'configs' / 'selfsup').glob(f'*/{config}.py'))
            for part in data:
                places = [
                    ROOT / 'configs/selfsup' / p for p in ('data', '_base_/probes')
                ]
                assert any((place / f'{part}.py').is_file() for place in places)
    for entry in table.datasets:
        assert images_of(entry)['data_root'].startswith('data/')
