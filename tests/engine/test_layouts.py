"""Checkpoints as public projects write them."""

import pytest
import torch
import torchvision

from medssl_mm.engine.layouts import find_state_dict
from medssl_mm.engine.pretrained import load_pretrained_backbone, read_checkpoint
from medssl_mm.errors import UserError
from tests.engine.test_pretrained import backbone, prefixed

CHILDREN = ('conv1', 'bn1', 'relu', 'maxpool', 'layer1', 'layer2', 'layer3', 'layer4')


def _torchvision(seed=0):
    torch.manual_seed(seed)
    return torchvision.models.resnet18(weights=None).state_dict()


def _without_head(weights):
    return {name: v for name, v in weights.items() if not name.startswith('fc.')}


def _in_order(weights, children=CHILDREN):
    """Names in ``nn.Sequential`` of the children of a network."""
    numbers = {name: str(number) for number, name in enumerate(children)}
    return {
        '.'.join([numbers[name.partition('.')[0]], name.partition('.')[2]]): value
        for name, value in weights.items()
    }


def _of_transformers(weights):
    """By the modules of ``transformers.ResNetModel``: written out, not computed."""
    named = {}
    for name, value in weights.items():
        part, _, rest = name.partition('.')
        what = name.rpartition('.')[2]
        if part in ('conv1', 'bn1'):
            kind = 'convolution' if part == 'conv1' else 'normalization'
            named[f'resnet.embedder.embedder.{kind}.{what}'] = value
            continue
        block, module = rest.split('.')[:2]
        kind = 'convolution' if 'conv' in module else 'normalization'
        place = f'layer.{int(module[-1]) - 1}' if module != 'downsample' else 'shortcut'
        if module == 'downsample':
            kind = ('convolution', 'normalization')[int(rest.split('.')[2])]
        stage = int(part[-1]) - 1
        named[f'resnet.encoder.stages.{stage}.layers.{block}.{place}.{kind}.{what}'] = (
            value
        )
    return named


def _content(kind, weights):
    """A whole file, and where in it the backbone is."""
    bare = _without_head(weights)
    other = {name: value + 1 for name, value in bare.items()}
    return {
        'imagenet example': (
            dict(
                epoch=90,
                arch='resnet18',
                state_dict=prefixed(weights, 'module.'),
                best_acc1=torch.tensor(70.0),
                optimizer=dict(state={0: dict(momentum_buffer=torch.ones(3))}),
            ),
            'in state_dict, keys module.*',
        ),
        'moco linear': (
            dict(state_dict=prefixed(weights, 'module.'), best_acc1=torch.tensor(1.0)),
            'in state_dict, keys module.*',
        ),
        'simsiam': (
            dict(
                state_dict={
                    **prefixed(bare, 'module.encoder.'),
                    'module.encoder.fc.0.weight': torch.ones(2, 2),
                    'module.predictor.0.weight': torch.ones(2, 2),
                }
            ),
            'in state_dict, keys module.encoder.*',
        ),
        'radimagenet': (
            prefixed(_in_order(bare), 'backbone.'),
            'keys backbone.*, names of the children',
        ),
        'lightly': (
            dict(
                state_dict={
                    **prefixed(_in_order(bare), 'backbone.'),
                    **prefixed(_in_order(other), 'backbone_momentum.'),
                }
            ),
            'in state_dict, keys backbone.*, names of the children',
        ),
        'lightly without pooling': (
            dict(
                state_dict=prefixed(
                    _in_order(bare, [n for n in CHILDREN if n != 'maxpool']),
                    'online_network.module.',
                )
            ),
            'keys online_network.module.*, names of the children',
        ),
        'compiled': (
            dict(state_dict=prefixed(bare, '_orig_mod.backbone.')),
            'in state_dict, keys backbone.*',
        ),
        'compiled and parallel': (
            dict(model=prefixed(bare, 'module._orig_mod.')),
            'in model, keys module.*',
        ),
        'lightning': (
            {'state_dict': prefixed(bare, 'net.'), 'pytorch-lightning_version': '2'},
            'in state_dict, keys net.*',
        ),
        'lightning around parallel': (
            dict(state_dict=prefixed(bare, 'model.encoder.module.')),
            'keys model.encoder.module.*',
        ),
        'transformers': (_of_transformers(bare), 'names of a ResNet of transformers'),
        'timm with average': (
            dict(state_dict_ema=other, state_dict=weights, epoch=3),
            'in state_dict, keys without prefix',
        ),
        'largest container': (
            dict(model=dict(mean=torch.ones(3)), network=dict(weights=bare)),
            'in network.weights, keys without prefix',
        ),
    }[kind]


@pytest.mark.parametrize(
    'kind',
    [
        'imagenet example',
        'moco linear',
        'simsiam',
        'radimagenet',
        'lightly',
        'lightly without pooling',
        'compiled',
        'compiled and parallel',
        'lightning',
        'lightning around parallel',
        'transformers',
        'timm with average',
        'largest container',
    ],
)
def test_public_layouts(tmp_path, kind):
    weights = _torchvision()
    content, where = _content(kind, weights)
    torch.save(content, tmp_path / 'a.pth')
    net = backbone(in_channels=3)
    report = load_pretrained_backbone(net, tmp_path / 'a.pth')
    for name, value in net.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert where in str(report)
    assert 'loaded     100 of 100 tensors' in str(report)
    assert not report.unexpected


@pytest.mark.parametrize('asked', [None, 'online', 'target'])
@pytest.mark.parametrize(
    'slow, first', [('teacher', 'target'), ('model_ema', 'online')]
)
def test_student_and_teacher_in_containers(asked, slow, first):
    weights = [_without_head(_torchvision(seed)) for seed in (0, 1)]
    fast = 'student' if slow == 'teacher' else 'model'
    content = {
        fast: prefixed(weights[0], 'module.backbone.'),
        slow: prefixed(weights[1], 'backbone.'),
        'epoch': 3,
    }
    net = backbone(in_channels=3)
    report = load_pretrained_backbone(net, content, asked)
    chosen = asked or first
    expected = weights[chosen == 'target']
    for name, value in net.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert report.encoder == chosen
    left = fast if chosen == 'target' else slow
    assert dict(report.ignored) == {left: len(expected)}


def test_folder_of_a_hub(tmp_path):
    safetensors = pytest.importorskip('safetensors.torch')
    weights = _without_head(_torchvision())
    (tmp_path / 'config.json').write_text('{"model_type": "resnet"}')
    with pytest.raises(UserError, match='folder without weights: expected model.safe'):
        read_checkpoint(tmp_path)
    safetensors.save_file(_of_transformers(weights), tmp_path / 'model.safetensors')
    for source in (tmp_path, tmp_path / 'model.safetensors'):
        net = backbone(in_channels=3)
        load_pretrained_backbone(net, source)
        for name, value in net.state_dict().items():
            if 'num_batches_tracked' not in name:
                assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize('value', [torch.nan, torch.inf])
def test_ruined_weights_are_refused_and_nothing_is_loaded(value):
    weights = _without_head(_torchvision())
    weights['layer4.1.bn2.running_var'] = torch.full((512,), value)
    net = backbone(in_channels=3)
    before = net.conv1.weight.clone()
    with pytest.raises(UserError, match=r'layer4\.1\.bn2\.running_var \(512 of 512'):
        load_pretrained_backbone(net, dict(state_dict=prefixed(weights, 'backbone.')))
    assert torch.equal(net.conv1.weight, before)


def test_other_network_names_the_place_that_fits_best():
    other = torchvision.models.resnet34(weights=None).state_dict()
    content = dict(best=torch.ones(1), state_dict=prefixed(other, 'module.'))
    net = backbone(50, in_channels=3)
    with pytest.raises(UserError, match='looks like ResNet-34, model is ResNet-50'):
        load_pretrained_backbone(net, content)


@pytest.mark.parametrize('content', [[torch.ones(2)], {'a': 1}, {}, 'text'])
def test_files_without_weights(content):
    with pytest.raises(UserError, match='FILE holds no weights: expected named'):
        find_state_dict(content, 'FILE')


def test_whole_model_without_wrappers():
    model = {'backbone.conv1.weight': torch.ones(1), 'decode_head.bias': torch.ones(1)}
    for wrapper in ('', 'module.', '_orig_mod.', 'module._orig_mod.'):
        content = dict(best_acc1=torch.ones(1), state_dict=prefixed(model, wrapper))
        assert find_state_dict(content, 'FILE') == model
