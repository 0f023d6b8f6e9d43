"""Weights go into networks that make the same of them."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from medssl_mm.engine.pretrained import PretrainedBackbone, load_pretrained_backbone
from medssl_mm.engine.taps import (
    KEY,
    attach_taps,
    compare_taps,
    pass_on_allowance,
    stated_taps,
)
from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS

SMALL = dict(depth=18, base_channels=4, stem_channels=4, in_channels=1)
HOST = dict(type='ResNet', strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
DILATED = dict(type='medssl_mm.DilatedResNet', output_stride=16)


def build(**settings):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build({**SMALL, **settings})


def checkpoint_of(network, entry=True, settings=None):
    content = dict(
        state_dict={f'backbone.{n}': v for n, v in network.state_dict().items()}
    )
    if entry:
        model = torch.nn.Module()
        model.backbone = network
        attach_taps(content, model)
    if settings:
        config = dict(
            model=dict(backbone={**SMALL, **settings}), default_scope='mmpretrain'
        )
        content['meta'] = dict(cfg=Config(config).pretty_text)
    return content


def weights_of(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_strided_weights_go_into_the_dilated_network():
    strided, dilated = build(type='ResNet'), build(**DILATED)
    report = load_pretrained_backbone(dilated, checkpoint_of(strided))
    assert 'what they were trained for' in str(report)
    assert torch.equal(weights_of(dilated), weights_of(strided))


@pytest.mark.parametrize('entry', [True, False], ids=['entry', 'config of before'])
def test_another_network_is_refused_and_stays(entry):
    strided, host = build(type='ResNet'), build(**HOST)
    before = weights_of(host)
    with pytest.raises(
        UserError,
        match=r'given.pth .* 3 of 18 windows .* layer4\.0\.conv1 at pixels 16 apart '
        r'there and 32 here.*DilatedResNet .*allow_other_dilation=True',
    ):
        load_pretrained_backbone(
            host,
            checkpoint_of(strided, entry, dict(type='ResNet')),
            source='given.pth',
        )
    assert torch.equal(weights_of(host), before)


def test_a_pretraining_of_before_is_known_by_its_config():
    host = build(**HOST)
    content = checkpoint_of(host, False, HOST)
    assert stated_taps(content)[0] == stated_taps(checkpoint_of(host))[0]
    with pytest.raises(
        UserError,
        match=r"That was type='ResNet', strides=\(1, 2, 2, 1\), "
        r'dilations=\(1, 1, 1, 2\).*pretrain anew',
    ):
        compare_taps(build(**DILATED), content, 'old.pth')
    for same in (build(**HOST), build(**DILATED, legacy_dilation=True)):
        assert 'trained for' in compare_taps(same, content, 'old.pth')


def test_it_can_be_accepted_knowingly(tmp_path, capsys):
    strided, host = build(type='ResNet'), build(**HOST)
    torch.save(checkpoint_of(strided), tmp_path / 'a.pth')
    config = Config(
        dict(
            allow_other_dilation=True,
            model=dict(
                backbone=dict(init_cfg=dict(type='medssl_mm.PretrainedBackbone'))
            ),
        )
    )
    pass_on_allowance(config)
    settings = dict(config.model.backbone.init_cfg)
    settings.pop('type')
    PretrainedBackbone(str(tmp_path / 'a.pth'), **settings)(host)
    assert torch.equal(weights_of(host), weights_of(strided))
    told = ''.join(capsys.readouterr())
    assert 'accepted by allow_other_dilation' in told
    assert 'layer4.0.conv1 at pixels 16 apart there and 32 here' in told


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        ({}, 'does not say its network'),
        (dict(meta=dict(cfg='import os')), 'does not say its network'),
        (
            dict(meta=dict(cfg="model = dict(backbone=dict(type='Nobody'))")),
            'cannot be built',
        ),
    ],
)
def test_what_is_not_known_is_said(content, reason):
    network = build(type='ResNet')
    content = dict(content, state_dict=network.state_dict())
    assert reason in compare_taps(network, content, 'x.pth')


def test_other_networks_have_no_entry():
    content = {}
    attach_taps(content, torch.nn.Linear(1, 1))
    assert KEY not in content
    assert 'not compared' in compare_taps(torch.nn.Identity(), content, 'x.pth')


def timm_network(name, **settings):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(timm_settings(name, **settings))


def timm_settings(name, **settings):
    return dict(
        type='TIMMBackbone',
        model_name=name,
        features_only=True,
        in_channels=1,
        **settings,
    )


def timm_checkpoint(name, **settings):
    content = checkpoint_of(timm_network(name, **settings))
    backbone = timm_settings(name, **settings)
    config = dict(model=dict(backbone=backbone), default_scope='mmpretrain')
    return {**content, 'meta': dict(cfg=Config(config).pretty_text)}


@pytest.mark.parametrize('name', ['resnet18', 'efficientnet_lite0', 'regnetx_002'])
def test_networks_of_timm_that_stay_the_same_at_another_stride(name):
    content = timm_checkpoint(name)
    for stride in (8, 16, 32):
        network = timm_network(name, output_stride=stride)
        assert 'trained for' in compare_taps(network, content, 'a.pth')
        report = load_pretrained_backbone(network, content)
        assert 'trained for' in str(report)


@pytest.mark.parametrize(
    ('name', 'least'),
    # Even windows; padding of TensorFlow; means over the map, near 1 in random ones.
    [
        ('convnext_atto', 50),
        ('tf_efficientnet_lite0', 20),
        ('mobilenetv3_small_050', 0),
    ],
)
def test_networks_of_timm_that_become_others(name, least, capsys):
    content = timm_checkpoint(name)
    network = timm_network(name, output_stride=8)
    before = weights_of(network)
    with pytest.raises(UserError, match='a.pth was trained at stride 32; at str') as e:
        load_pretrained_backbone(network, content, source='a.pth')
    assert torch.equal(weights_of(network), before)
    percent = float(re.search(r'last map is ([\d.]+) % off', str(e.value))[1])
    assert percent > least
    assert 'Set model.backbone.output_stride=32; or accept it' in str(e.value)
    told = compare_taps(network, content, 'a.pth', allow=True)
    assert 'OTHERS than in the training' in told
    assert '% off at the positions of both' in ''.join(capsys.readouterr())
    # At the stride of its training it is what it was.
    assert 'trained for' in compare_taps(timm_network(name), content, 'a.pth')
