"""Exports: used without this package they give the same features."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image

from medssl_mm.encoders import load_encoder
from medssl_mm.encoders.export import export_encoder
from medssl_mm.engine.seen import seen_in_file
from medssl_mm.errors import UserError
from medssl_mm.provenance import Cases, Seen, Shown, attach
from medssl_mm.registry import MODELS
from tests import tools
from tests.converters import originals

HOSTS = ('mmengine', 'mmcv', 'mmpretrain', 'mmseg', 'mmselfsup', 'mmcls', 'medssl_mm')

GREY = dict(type='ResNet', depth=18, in_channels=1, norm_cfg=dict(type='BN'))
SMALL = dict(type='medssl_mm.ResNetSmallStem', depth=18, in_channels=1, max_pool=False)
CT = dict(type='medssl_mm.CTWindow', level=50, width=500)
UNIT = dict(type='medssl_mm.ShiftScale', mean=0.0, std=255.0)
HEAD = dict(type='medssl_mm.DecorrelationHead', num_groups=64, eps=1e-2)


def literal(value):
    """A value as mmengine writes it into a checkpoint."""
    if isinstance(value, dict):
        return f'dict({", ".join(f"{k}={literal(v)}" for k, v in value.items())})'
    if isinstance(value, list):
        return f'[{", ".join(map(literal, value))}]'
    return repr(value)


def write_pretraining(path, backbone, normalize, decorrelation=None, root='nih1000'):
    """A checkpoint of a pretraining, with its config."""
    torch.manual_seed(0)
    scope = '' if '.' in backbone['type'] else 'mmpretrain.'
    network = MODELS.build({**backbone, 'type': scope + backbone['type']})
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    network.eval()
    state = originals.prefixed(network.state_dict(), 'backbone.')
    state['neck.fc.weight'] = torch.zeros(2)
    model = dict(type='medssl_mm.MultiLevelMoCo', backbone=backbone)
    head = None
    if decorrelation:
        model['decorrelation'] = decorrelation
        head = MODELS.build(dict(num_channels=512, **decorrelation))
        for _ in range(3):
            head(torch.randn(64, 512, 2, 2))
        state.update(originals.prefixed(head.eval().state_dict(), 'decorrelation.'))
    pipeline = [
        normalize,
        dict(
            type='medssl_mm.CropViews',
            crop=dict(type='medssl_mm.RandomCropView', size=64),
        ),
    ]
    dataset = dict(
        type='medssl_mm.ClassificationImages',
        data_root=f'data/{root}',
        pipeline=pipeline,
    )
    text = (
        f"default_scope = 'mmselfsup'\nmodel = {literal(model)}\n"
        f'train_dataloader = {literal(dict(dataset=dataset))}\n'
    )
    torch.save(dict(meta=dict(cfg=text), state_dict=state), path)
    return network, head


def write_description(path, **content):
    path.write_text(f'encoder = dict(**{content!r})', encoding='utf-8')
    return f'random:{path}'


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """One grey, one colour picture, larger than any encoder takes."""
    folder = tmp_path_factory.mktemp('pictures')
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((400, 300), Image.Resampling.BICUBIC)
    picture.save(folder / 'colour.png')
    picture.convert('L').save(folder / 'grey.png')
    return folder


PRETRAININGS = {
    'xray': (GREY, UNIT, None),
    'ct': (GREY, CT, None),
    'small_stem': (SMALL, UNIT, None),
    'decorrelated': (GREY, UNIT, HEAD),
}
CASES = [
    ('random:supervised_resnet18', 'torchvision'),
    ('random:supervised_resnet18', 'timm'),
    ('random:mimic-chexpert_lr-0.1', 'torchvision'),
    ('random:supervised_densenet121', 'timm'),
    ('random:efficientnet-lite0', 'timm'),
    ('random:efficientnet-lite0_torch-padding', 'timm'),
    ('xray', 'torchvision'),
    ('ct', 'timm'),
    ('small_stem', 'torchvision'),
    ('decorrelated', 'torchvision'),
    ('decorrelated', 'timm'),
    ('random:mimic-chexpert_lr-0.1', 'timm'),
]
RUN = """
import json, re, sys
from pathlib import Path
sys.modules.update(dict.fromkeys({hosts}))
import os, timm, torch
result = {{}}
for folder in sorted(Path({folder!r}).iterdir()):
    os.chdir(folder)
    text = Path('README.md').read_text()
    code = re.search('```python\\n(.*?)```', text, re.DOTALL)[1]
    names = {{}}
    exec(code.replace('picture.png', {picture!r}["convert('L')" in text]), names)
    result[folder.name] = names['features'][0].tolist()
    if 'architecture' in json.loads(Path('config.json').read_text()):
        model = timm.create_model(f'local-dir:{{folder}}', pretrained=True).eval()
        with torch.inference_mode():
            found = model(names['x'][None])[0]
        assert torch.equal(found, names['features'][0]), folder
Path({out!r}).write_text(json.dumps(result))
"""


@pytest.fixture(scope='module')
def exports(tmp_path_factory, pictures):
    """All cases, and their features by the lines of their cards."""
    root = tmp_path_factory.mktemp('exports')
    (root / 'made').mkdir()
    made = {}
    for name, settings in PRETRAININGS.items():
        path = root / f'{name}.pth'
        made[name] = write_pretraining(path, *settings)
    for number, (source, target) in enumerate(CASES):
        checkpoint = root / f'{source}.pth'
        fold = 'fold' if source == 'decorrelated' else 'drop'
        export_encoder(
            checkpoint if checkpoint.is_file() else source,
            target,
            root / 'made' / str(number),
            decorrelation=fold,
        )
    code = RUN.format(
        hosts=HOSTS,
        folder=str(root / 'made'),
        picture=[str(pictures / 'colour.png'), str(pictures / 'grey.png')],
        out=str(root / 'features.json'),
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        cwd=root,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return root, made, json.loads((root / 'features.json').read_text())


@pytest.mark.parametrize('number', range(len(CASES)))
def test_features_without_this_package(exports, pictures, number):
    source, target = CASES[number]
    root, made, features = exports
    folder = root / 'made' / str(number)
    found = torch.tensor(features[str(number)])
    encoder = load_encoder(folder)
    grey = encoder.preprocessing.channels == 1
    picture = np.asarray(Image.open(pictures / ('grey.png' if grey else 'colour.png')))
    x = encoder.preprocessing(picture)[None]
    with torch.inference_mode():
        torch.testing.assert_close(found, encoder(x)[0], rtol=1e-4, atol=1e-4)
        if source in made:
            network, head = made[source]
            maps = network(x)[-1]
            maps = maps if head is None else head(maps)
            expected = maps.mean((2, 3))[0]
        else:
            expected = load_encoder(source)(x)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert found.std() > 0
    assert encoder.settings.embedding_length == len(found)


def test_the_card_says_what_a_picture_must_be(exports):
    root = exports[0]
    card = (root / 'made' / '7' / 'README.md').read_text()
    assert '| window | level 50, width 500 HU: -200 to 300 HU become 0 to 255 |' in card
    assert '| channels | 1 (grey) |' in card
    assert 'to 64 px (bilinear)' in card
    assert '| have seen | nih1000 |' in card and '| licence of nih1000 | ' in card
    assert 'does not fit' in card and 'nnU-Net' in card
    card = (root / 'made' / '2' / 'README.md').read_text()
    assert 'spread evenly over 0 to 255' in card
    assert 'MIMIC-CXR: PhysioNet credentialed access' in card
    assert '| licence of chexpert | Stanford' in card


def test_timm_is_told_nothing_that_it_would_read_otherwise(exports):
    """Histograms: it would take the mean of ImageNet; the card's lines work."""
    import timm

    folder = exports[0] / 'made' / str(len(CASES) - 1)
    content = json.loads((folder / 'config.json').read_text())
    assert set(content) == {'medssl_mm'}
    assert '| local-dir: of timm | not possible' in (folder / 'README.md').read_text()
    with pytest.raises(Exception, match='architecture'):
        timm.create_model(f'local-dir:{folder}', pretrained=True)
    # Of others it reads what they want.
    number = CASES.index(('random:efficientnet-lite0', 'timm'))
    folder = exports[0] / 'made' / str(number)
    network = timm.create_model(f'local-dir:{folder}', pretrained=True)
    read = timm.data.resolve_data_config({}, model=network)
    assert (read['mean'], read['std']) == ([127 / 255] * 3, [128 / 255] * 3)
    assert (read['crop_pct'], read['interpolation']) == (0.875, 'bicubic')


@pytest.mark.parametrize(
    'source', ['random:supervised_densenet121', 'random:byol', 'random:cifar-resnet20']
)
@pytest.mark.parametrize('target', ['mmpretrain', 'mmseg'])
def test_hosts(tmp_path, source, target):
    """The lines for a config give a backbone with the weights."""
    export_encoder(source, target, tmp_path / 'out')
    card = (tmp_path / 'out' / 'README.md').read_text()
    code = re.search('```python\n(.*?)```', card, re.DOTALL)[1]
    names = {}
    exec(code.replace('model.pth', str(tmp_path / 'out' / 'model.pth')), names)
    step = load_encoder(source).preprocessing
    mean, std = (np.array(names['data_preprocessor'][key]) for key in ('mean', 'std'))
    np.testing.assert_allclose(mean, 255 * np.array(step.mean), rtol=1e-4)
    np.testing.assert_allclose(std, 255 * np.array(step.std), rtol=1e-4)
    network = MODELS.build(names['backbone'])
    network.init_weights()
    network.eval()
    expected, again = load_encoder(source), load_encoder(tmp_path / 'out')
    assert expected.digest == again.digest
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network(images)[-1].mean((2, 3)), expected(images))


def config_of_card(folder):
    """What the lines for a config in a card say, with the weights of the folder."""
    card = (folder / 'README.md').read_text()
    code = re.search('```python\n(.*?)```', card, re.DOTALL)[1]
    names = {}
    exec(code.replace('model.pth', str(folder / 'model.pth')), names)
    return names, card


def by_card(names, images):
    """Features of backbone and neck as a host builds and fills them."""
    parts = [
        MODELS.build(names[part]) for part in ('backbone', 'neck') if part in names
    ]
    for part in parts:
        part.init_weights()
        part.eval()
        images = part(images)
    return images[-1].mean((2, 3))


@pytest.mark.parametrize('target', ['mmpretrain', 'mmseg'])
def test_hosts_keep_a_folded_decorrelation(tmp_path, target):
    """As the neck of the lines for a config."""
    network, head = write_pretraining(tmp_path / 'run.pth', GREY, UNIT, HEAD)
    out = tmp_path / 'out'
    export_encoder(tmp_path / 'run.pth', target, out, decorrelation='fold')
    names, card = config_of_card(out)
    assert 'decorrelated by the neck' in card
    assert 'medssl_mm.registry' in names['custom_imports']['imports']
    images = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        found = by_card(names, images)
        torch.testing.assert_close(found, load_encoder(out)(images))
        expected = head(network(images)[-1]).mean((2, 3))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'more, kind',
    [
        # Acts in training alone; mmseg's class does not take it.
        (dict(depth=18, drop_path_rate=0.1), 'mmseg.ResNet'),
        # Other names in mmseg's class, where the first stage has a pooling as well.
        (dict(depth=50, avg_down=True), 'mmpretrain.ResNet'),
    ],
)
def test_mmseg_builds_what_the_card_says(tmp_path, more, kind):
    source = write_description(
        tmp_path / 'mine.py',
        title='Mine',
        backbone=dict(type='mmpretrain.ResNet', base_channels=8, **more),
        embedding_length=64 if more['depth'] == 18 else 256,
        preprocessing=dict(size=64),
    )
    export_encoder(source, 'mmseg', tmp_path / 'out')
    names, card = config_of_card(tmp_path / 'out')
    assert names['backbone']['type'] == kind and 'not checked' not in card
    assert ('custom_imports' in names) == (kind == 'mmpretrain.ResNet')
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(by_card(names, images), load_encoder(source)(images))


def test_a_host_that_does_not_give_the_maps(tmp_path):
    """The neck gets the last map that is returned, which is none of the encoder."""
    backbone = dict(GREY, out_indices=[0, 1, 2])
    write_pretraining(tmp_path / 'run.pth', backbone, UNIT, HEAD)
    with pytest.raises(UserError, match='or choose --decorrelation drop'):
        export_encoder(
            tmp_path / 'run.pth', 'mmpretrain', tmp_path / 'out', decorrelation='fold'
        )
    assert not (tmp_path / 'out').exists()


def test_a_host_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmseg', None)
    export_encoder('random:resnet18', 'mmseg', tmp_path / 'out')
    names, card = config_of_card(tmp_path / 'out')
    assert '| not checked | that mmseg builds this network' in card
    assert names['backbone']['type'] == 'mmpretrain.ResNet'


def test_timm_resizes_to_the_same_size(tmp_path):
    """It rounds down what it computes from a share."""
    source = write_description(
        tmp_path / 'mine.py',
        title='Mine',
        backbone=dict(type='mmpretrain.ResNet', depth=18),
        embedding_length=512,
        preprocessing=dict(size=16, resize_to=93),
    )
    export_encoder(source, 'timm', tmp_path / 'out')
    content = json.loads((tmp_path / 'out' / 'config.json').read_text())
    assert math.floor(16 / content['pretrained_cfg']['crop_pct']) == 93


@pytest.mark.parametrize('output_stride', [8, 16, 32])
@pytest.mark.parametrize('target', ['torchvision', 'mmpretrain', 'mmseg'])
def test_dilated_networks_go_out_as_those_of_strides(tmp_path, output_stride, target):
    """Without a type of this package; the same at the positions of both."""
    backbone = dict(GREY, type='medssl_mm.DilatedResNet', output_stride=output_stride)
    with DefaultScope.overwrite_default_scope('mmselfsup'):
        dilated, _ = write_pretraining(tmp_path / 'run.pth', backbone, UNIT)
    export_encoder(tmp_path / 'run.pth', target, tmp_path / 'out')
    text = (tmp_path / 'out' / 'config.json').read_text()
    assert 'DilatedResNet' not in text
    card = (tmp_path / 'out' / 'README.md').read_text()
    assert f'{output_stride} px; this is the network of strides' in card
    again = load_encoder(tmp_path / 'out')
    images = torch.rand(2, 1, 64, 64)
    step = 32 // output_stride
    with torch.inference_mode():
        shared = dilated(images)[-1][:, :, ::step, ::step]
        torch.testing.assert_close(again(images), shared.mean((2, 3)))


@pytest.mark.parametrize('target', ['torchvision', 'mmpretrain'])
def test_split_statistics_go_out_as_batch_normalisation(tmp_path, target):
    norm = dict(type='medssl_mm.SplitBatchNorm', num_splits=4, eps=1e-5)
    split, _ = write_pretraining(tmp_path / 'run.pth', dict(GREY, norm_cfg=norm), UNIT)
    export_encoder(tmp_path / 'run.pth', target, tmp_path / 'out')
    assert 'SplitBatchNorm' not in (tmp_path / 'out' / 'config.json').read_text()
    images = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        found = load_encoder(tmp_path / 'out')(images)
        torch.testing.assert_close(found, split(images)[-1].mean((2, 3)))


def test_legacy_dilation_goes_out_as_it_was(tmp_path):
    backbone = dict(
        GREY, type='medssl_mm.DilatedResNet', output_stride=16, legacy_dilation=True
    )
    with DefaultScope.overwrite_default_scope('mmselfsup'):
        dilated, _ = write_pretraining(tmp_path / 'run.pth', backbone, UNIT)
    with pytest.raises(UserError, match='computes something else'):
        export_encoder(tmp_path / 'run.pth', 'torchvision', tmp_path / 'out')
    export_encoder(tmp_path / 'run.pth', 'mmpretrain', tmp_path / 'out')
    images = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        found = load_encoder(tmp_path / 'out')(images)
        torch.testing.assert_close(found, dilated(images)[-1].mean((2, 3)))


@pytest.mark.parametrize(
    'source, target, message',
    [
        (
            'random:byol',
            'torchvision',
            'resnet50 of torchvision computes something els',
        ),
        ('random:byol', 'timm', 'ResNetSamePadding.*export it --to mmpretrain'),
        (
            'random:cifar-resnet20',
            'timm',
            'timm has no cifar-resnet20; convert it to mm',
        ),
        ('random:efficientnet-lite0', 'torchvision', 'export it --to timm'),
        (
            'random:timm/convnext_atto',
            'torchvision',
            'convnext_atto of timm: torchvisi',
        ),
    ],
)
def test_networks_that_a_target_lacks(tmp_path, source, target, message):
    with pytest.raises(UserError, match=message):
        export_encoder(source, target, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_network_of_no_other_library(tmp_path):
    source = write_description(
        tmp_path / 'mine.py',
        title='Mine',
        backbone=dict(type='mmpretrain.ResNet', depth=18, base_channels=8),
        embedding_length=64,
    )
    with pytest.raises(
        UserError, match='of no network that torchvision or timm has .*of another shape'
    ):
        export_encoder(source, 'timm', tmp_path / 'out')
    export_encoder(source, 'mmpretrain', tmp_path / 'out')
    assert load_encoder(tmp_path / 'out').digest == load_encoder(source).digest


def changed_weights(folder):
    path = folder / 'model.safetensors'
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def truncated(folder):
    path = folder / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    'change, message',
    [
        (changed_weights, r'model\.safetensors is not the file that was exported'),
        (truncated, 'truncated or changed; export it again'),
        (lambda f: (f / 'model.safetensors').unlink(), r'has no model\.safetensors'),
        (lambda f: (f / 'config.json').unlink(), r'it has no config\.json; write one'),
        (lambda f: (f / 'config.json').write_text('{'), r'config\.json is damaged'),
        (
            lambda f: (f / 'config.json').write_text('{}'),
            'expected an export of format',
        ),
    ],
)
def test_damaged_exports(tmp_path, change, message):
    folder = tmp_path / 'out'
    export_encoder('random:cifar-resnet20', 'mmpretrain', folder)
    change(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_encoder(folder)
    assert str(folder) in str(caught.value)


def tool(*arguments):
    return tools.run('export.py', *arguments)


def test_tool(tmp_path):
    write_pretraining(tmp_path / 'epoch_1.pth', GREY, UNIT)
    done = tool(tmp_path / 'epoch_1.pth', '--to', 'timm', '--out', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert 'network: resnet18 of timm' in done.stdout
    done = tool(tmp_path / 'epoch_1.pth', '--to', 'timm', '--out', tmp_path / 'out')
    assert done.returncode == 2 and 'is not empty; choose another' in done.stderr
    done = tool(tmp_path / 'epoch_1.pth', '--to', 'nnunet', '--out', tmp_path / 'b')
    assert done.returncode == 2 and 'does not fit' in done.stderr


@pytest.mark.parametrize('target', ['timm', 'mmseg'])
def test_what_the_weights_have_seen_goes_along(tmp_path, target):
    write_pretraining(tmp_path / 'epoch_1.pth', GREY, UNIT)
    cases = Cases('nih1000', 'p', 'abc', ('pretrain',), ['a'], ['f' * 64], ['x'])
    seen = Seen((Shown.of('pretrain', cases),))
    content = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    torch.save(attach(content, seen), tmp_path / 'epoch_1.pth')
    export_encoder(tmp_path / 'epoch_1.pth', target, tmp_path / 'out')
    assert load_encoder(tmp_path / 'out').provenance == seen
    for file in tmp_path.glob('out/model.*'):
        assert seen_in_file(file) == seen
    assert (
        'pretraining on nih1000 (p, split abc, pretrain): 1 case, 1 patient'
        in (tmp_path / 'out' / 'README.md').read_text()
    )
    # An export of the export, and a file of before.
    export_encoder(tmp_path / 'out', target, tmp_path / 'again')
    assert load_encoder(tmp_path / 'again').provenance == seen
    torch.save(content, tmp_path / 'old.pth')
    export_encoder(tmp_path / 'old.pth', target, tmp_path / 'third')
    assert load_encoder(tmp_path / 'third').provenance == Seen(unknown=('old.pth',))


def test_settings_that_mean_nothing(tmp_path):
    with pytest.raises(UserError, match='no checkpoint of a pretraining: --config'):
        export_encoder('random:resnet18', 'timm', tmp_path / 'out', encoder='target')
    write_pretraining(tmp_path / 'e.pth', GREY, UNIT)
    with pytest.raises(UserError, match='e.pth: .*no decorrelation to fold'):
        export_encoder(
            tmp_path / 'e.pth', 'timm', tmp_path / 'out', decorrelation='fold'
        )
    torch.save(dict(state_dict={'backbone.a': torch.zeros(1)}), tmp_path / 'f.pth')
    with pytest.raises(
        UserError, match='f.pth holds no config; give --config, or, .*NAME:.*f.pth'
    ):
        export_encoder(tmp_path / 'f.pth', 'timm', tmp_path / 'out')


@pytest.mark.parametrize(
    'steps, size, resize_to',
    [
        ([dict(type='RandomResizedCrop', size=32)], 32, None),
        (
            [
                dict(type='RandomAffine', degrees=180),
                dict(type='RandomResizedCrop', size=256, scale=[0.4, 1.0]),
                dict(type='CenterCrop', size=224),
                dict(type='GaussianBlur', kernel_size=3),
            ],
            224,
            256,
        ),
    ],
)
def test_sizes_of_steps_of_torchvision(tmp_path, steps, size, resize_to):
    views = dict(type='medssl_mm.TorchvisionSteps', steps=steps)
    config = tmp_path / 'config.py'
    dataset = dict(
        type='medssl_mm.ClassificationImages',
        data_root='data/cifar10',
        pipeline=[dict(type='medssl_mm.ImageViews', transforms=[views])],
    )
    config.write_text(
        f'model = dict(backbone={literal(GREY)})\n'
        f'train_dataloader = {literal(dict(dataset=dataset))}\n'
    )
    write_pretraining(tmp_path / 'e.pth', GREY, UNIT)
    export_encoder(tmp_path / 'e.pth', 'timm', tmp_path / 'out', config)
    found = load_encoder(tmp_path / 'out')
    step = found.preprocessing
    assert (step.size, step.resize_to, step.channels) == (size, resize_to, 1)
    assert found.settings.trained_on == ('cifar10',)
