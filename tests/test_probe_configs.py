"""Commands of the READMEs that train with probes, or what InnerEye's become."""

import re
from pathlib import Path

import pytest

from tests.datasets.images import write_image_set
from tests.shipped import CONFIGS

ROOT = CONFIGS.parent
PARTS = sorted((CONFIGS / 'selfsup/_base_/probes').glob('*.py'))
OPTION = r'[\w.]+=[^\s`]+'
COMMAND = re.compile(
    r'tools/train\.py (configs/[^\s`]+)(?: --amp \w+)?((?: --cfg-options(?: '
    + OPTION
    + r')+)?)'
)
# Written by what the lines before do.
MADE = ('strong.py', 'head.py')


def commands(*names):
    """Config and options of each command, once."""
    found = {}
    for name in names:
        text = (ROOT / name).read_text(encoding='utf-8').replace('\\\n', ' ')
        for config, options in COMMAND.findall(re.sub(' +', ' ', text)):
            parts = [part for part in config.split('+') if part not in MADE]
            found['+'.join(parts), options.strip()] = None
    return list(found)


TABLE = commands('configs/README.md')
WITH_PROBES = [
    command
    for command in commands(
        'configs/README.md', 'docs/monitoring.md', 'docs/results.md'
    )
    if '_base_/probes' in command[0]
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Where the one set of images is that no importer knows by name."""
    import medssl_mm.registry  # noqa: F401

    folder = tmp_path_factory.mktemp('probes')
    classes = ('no opacity', 'opacity')
    write_image_set(folder / 'data/rsna-of-nih1000', classes=classes)
    return folder


def load(command, folder, monkeypatch):
    from medssl_mm.engine.launch import load_config

    monkeypatch.chdir(folder)
    config, options = command
    return load_config(config, re.findall(OPTION, options))


def test_the_commands_name_every_part():
    named = {Path(part).name for config, _ in WITH_PROBES for part in config.split('+')}
    assert {path.name for path in PARTS} <= named


@pytest.mark.parametrize('command', WITH_PROBES, ids=' '.join)
def test_probes_of_a_command_can_be_built(command, folder, monkeypatch):
    from mmengine.registry import HOOKS

    from medssl_mm.engine.hooks.image_probe_hook import ImageProbeHook
    from medssl_mm.registry import TRANSFORMS

    config = load(command, folder, monkeypatch)
    probes = [
        HOOKS.build(settings)
        for key, settings in config.default_hooks.items()
        if key.endswith('_probe')
    ]
    assert probes and all(isinstance(probe, ImageProbeHook) for probe in probes)
    for probe in probes:
        for images in probe.settings.values():
            assert {'data_root', 'split', 'subset'} <= set(images)
            for step in images['pipeline']:
                TRANSFORMS.build(step)
            assert images['pipeline'][-1]['type'] == 'medssl_mm.PackViews'
    online = config.default_hooks.online_probe
    parity = 'parity.py' in command[0]
    assert online.get('encoder_mode', 'eval') == ('train' if parity else 'eval')
    assert online.get('max_grad_norm', 1.0) == (None if parity else 1.0)
    whole = (
        online.val_dataset.pipeline
        == config.default_hooks.knn_probe.val_dataset['pipeline']
    )
    assert whole != ('cropped' in command[0])


def test_the_pretraining_leaves_out_what_the_probe_validates():
    """Wherever both take the images of one set."""
    same_data = [
        options
        for config, options in TABLE
        if any(part in config for part in ('/cifar_32', '/xray_224'))
    ]
    assert len(same_data) == 6
    assert all('train_dataloader.dataset.subset=train' in o for o in same_data)


CLASSIFIERS = [c for c in TABLE if c[0].startswith('configs/classification/')]


@pytest.mark.parametrize('command', CLASSIFIERS, ids=' '.join)
def test_classifiers_fit_the_encoders_of_the_table(command, folder, monkeypatch):
    content = load(command, folder, monkeypatch)
    assert content.model.backbone.init_cfg.checkpoint == 'FILE'
    rows = [c for c in TABLE if '/cifar' in command[0] and '4xb128' in c[0]] or [
        c for c in TABLE if '16xb75' in c[0]
    ]
    backbones = [load(row, folder, monkeypatch).model.backbone for row in rows]
    types = {(b.type, b.depth, b.in_channels) for b in backbones}
    found = content.model.backbone
    assert (found.type, found.depth, found.in_channels) in types
    # The other depth is said in the row.
    others = {str(depth) for _, depth, _ in types} - {str(found.depth)}
    text = (ROOT / 'configs/README.md').read_text(encoding='utf-8')
    (row,) = [line for line in text.splitlines() if ' '.join(command) in line]
    assert all(f'depth={depth}' in row for depth in others)
