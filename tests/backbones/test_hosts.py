"""Places of the hosts' networks are those that the hosts return."""

import copy
import re

import pytest
import torch
from torch import nn

from medssl_mm.backbones import backbone_of, describe_weights, stated_channels
from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS

VIT = dict(
    arch=dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32),
    img_size=32,
    patch_size=8,
    in_channels=1,
    out_type='featmap',
    out_indices=[0, 1, 2],
)
RESNET = dict(depth=18, in_channels=1, base_channels=4, stem_channels=4)
DENSENET = dict(growth_rate=4, depths=[2, 2, 2, 2], init_channels=8)
CONVNEXT = dict(depths=[1, 2, 1, 1], channels=[4, 8, 16, 32])
# Config, the numbers of the places that the host itself returns (in order),
# strides of all places, name of the last place.
HOSTS = {
    'mmselfsup ResNet': (
        dict(type='mmselfsup.ResNet', out_indices=(0, 1, 2, 3, 4), **RESNET),
        [0, 1, 2, 3, 4],
        [2, 4, 8, 16, 32],
        'stage4',
    ),
    'mmpretrain ResNet': (
        dict(type='mmpretrain.ResNet', out_indices=(0, 1, 2, 3), **RESNET),
        [1, 2, 3, 4],
        [2, 4, 8, 16, 32],
        'stage4',
    ),
    'mmseg ResNetV1c': (
        dict(type='mmseg.ResNetV1c', **RESNET),
        [1, 2, 3, 4],
        [2, 4, 8, 16, 32],
        'stage4',
    ),
    'ResNet_CIFAR': (
        dict(type='mmpretrain.ResNet_CIFAR', out_indices=(0, 1, 2, 3), **RESNET),
        [1, 2, 3, 4],
        [1, 1, 2, 4, 8],
        'stage4',
    ),
    'DenseNet': (
        dict(type='mmpretrain.DenseNet', arch=DENSENET, in_channels=1),
        [4],
        [4, 4, 8, 16, 32],
        'stage4',
    ),
    'ConvNeXt': (
        dict(
            type='mmpretrain.ConvNeXt',
            arch=CONVNEXT,
            in_channels=1,
            gap_before_final_norm=False,
        ),
        [4],
        [4, 4, 8, 16, 32],
        'stage4',
    ),
    'EfficientNet': (
        dict(
            type='medssl_mm.EfficientNetAnyChannels', out_indices=(0, 1, 2, 3, 4, 5, 6)
        ),
        [0, 1, 2, 3, 4, 5, 6],
        [2, 2, 4, 8, 16, 32, 32],
        'stage6',
    ),
    'ViT': (
        dict(type='mmpretrain.VisionTransformer', **VIT),
        [1, 2, 3],
        [8, 8, 8, 8],
        'block3',
    ),
    'ViT without class token': (
        dict(type='mmpretrain.VisionTransformer', with_cls_token=False, **VIT),
        [1, 2, 3],
        [8, 8, 8, 8],
        'block3',
    ),
    'mmseg ViT': (
        dict(
            type='mmseg.VisionTransformer',
            img_size=32,
            patch_size=8,
            in_channels=1,
            embed_dims=16,
            num_layers=3,
            num_heads=2,
            mlp_ratio=2,
            out_indices=(0, 1, 2),
            final_norm=True,
        ),
        [1, 2, 3],
        [8, 8, 8, 8],
        'block3',
    ),
}


@pytest.fixture(params=HOSTS.values(), ids=HOSTS)
def host(request):
    settings, *facts = request.param
    torch.manual_seed(0)
    net = MODELS.build(copy.deepcopy(settings))
    net.eval()
    return net, *facts


def test_maps_are_those_of_the_host(host):
    net, numbers, strides, last = host
    backbone = backbone_of(net)
    images = torch.rand(2, 1, 64, 32)  # not square: the sides keep their order
    expected = net(images)
    found = backbone.maps(images, numbers)
    assert list(found) == numbers
    for number, level in zip(numbers, expected, strict=True):
        torch.testing.assert_close(found[number], level)
    assert backbone.names[backbone.last] == last
    assert list(backbone.names) == list(range(len(strides)))
    assert not any(part._forward_hooks for part in net.modules())


def test_output_channels_are_those_of_the_host(host):
    net, *_ = host
    expected = tuple(level.shape[1] for level in net(torch.rand(1, 1, 32, 32)))
    assert backbone_of(net).output_channels == expected


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize(
    'kind',
    [
        'mmselfsup.ResNet',
        'mmpretrain.ResNet',
        'mmpretrain.ResNetV1d',
        'mmpretrain.ResNet_CIFAR',
        'medssl_mm.ResNetSmallStem',
        'mmseg.ResNet',
        'mmseg.ResNetV1c',
    ],
)
@pytest.mark.parametrize('more', [{}, dict(base_channels=4, stem_channels=6)])
def test_stated_channels_are_those_of_the_network(kind, depth, more):
    settings = dict(type=kind, depth=depth, **more)
    built = backbone_of(MODELS.build(dict(settings)))
    assert stated_channels(settings) == built.channels


@pytest.mark.parametrize('stages', [1, 3])
def test_channels_are_stated_of_as_many_stages_as_there_are(stages):
    settings = dict(
        type='mmpretrain.ResNet',
        depth=18,
        num_stages=stages,
        strides=(1, 2, 2)[:stages],
        dilations=(1, 1, 1)[:stages],
        out_indices=(stages - 1,),
    )
    built = backbone_of(MODELS.build(dict(settings)))
    assert stated_channels(settings) == built.channels


def test_other_families_state_nothing():
    for settings, *_ in HOSTS.values():
        if 'ResNet' not in settings['type']:
            assert stated_channels(settings) == {}


def test_channels_and_strides_are_those_of_the_maps(host):
    net, _, strides, _ = host
    backbone = backbone_of(net)
    assert backbone.in_channels == 1
    assert list(backbone.strides.values()) == strides
    for number, level in backbone.maps(
        torch.rand(1, 1, 64, 64), backbone.names
    ).items():
        assert level.shape[1] == backbone.channels[number]
        assert level.shape[2:] == (64 // strides[number], 64 // strides[number])


def test_looking_changes_nothing(host):
    net = host[0]
    net.train()
    list(net.modules())[-1].eval()
    modes = [part.training for part in net.modules()]
    before = copy.deepcopy(net.state_dict())
    state = torch.get_rng_state()
    assert backbone_of(net).channels
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in net.modules()] == modes
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(parameter.grad is not None for parameter in net.parameters())


def test_pooled_features_are_means_of_the_maps(host):
    net = host[0]
    backbone = backbone_of(net)
    images = torch.rand(2, 1, 32, 32)
    found = backbone.pooled(images, backbone.feature_taps())
    maps = backbone.maps(images, backbone.names)
    assert list(found) == list(backbone.names.values())
    for number, level in maps.items():
        name = backbone.names[number]
        if name != 'stem':
            torch.testing.assert_close(found[name], level.detach().mean((2, 3)))


def test_stages_of_a_dense_net_end_before_their_transition():
    net = MODELS.build(copy.deepcopy(HOSTS['DenseNet'][0]))
    net.eval()
    images = torch.rand(2, 1, 64, 64)
    maps = backbone_of(net).maps(images, [0, 1, 3, 4])
    level = net.stem(images)
    torch.testing.assert_close(maps[0], level)
    for number in (1, 2, 3, 4):
        level = net.stages[number - 1](level)
        if number in (1, 3):
            torch.testing.assert_close(maps[number], level)
        level = net.transitions[number - 1](level)
    torch.testing.assert_close(maps[4], level)  # after norm and ReLU
    assert maps[4].min() >= 0


def test_last_map_of_a_conv_next_is_normalised_whatever_its_output():
    settings = copy.deepcopy(HOSTS['ConvNeXt'][0])
    torch.manual_seed(0)
    one = MODELS.build(copy.deepcopy(settings))
    other = MODELS.build(dict(settings, gap_before_final_norm=True))
    other.load_state_dict(one.state_dict())
    images = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(backbone_of(other).maps(images, [4])[4], one(images)[-1])


def test_blocks_of_the_families():
    names = {
        name: list(backbone_of(MODELS.build(copy.deepcopy(row[0]))).block_taps())
        for name, row in HOSTS.items()
        if name in ('ConvNeXt', 'EfficientNet', 'ViT')
    }
    assert names['ConvNeXt'] == [
        *('stage1.0', 'stage2.0', 'stage2.1', 'stage3.0', 'stage4.0')
    ]
    assert len(names['EfficientNet']) == 16
    assert names['ViT'] == ['block1', 'block2', 'block3']
    dense = MODELS.build(copy.deepcopy(HOSTS['DenseNet'][0]))
    with pytest.raises(UserError, match='blocks of DenseNet .* stages'):
        backbone_of(dense).block_taps()


@pytest.mark.parametrize(
    'name, words',
    [
        ('mmselfsup ResNet', 'ResNet-18'),
        ('mmseg ResNetV1c', r'ResNet-18 .* \(ResNetV1c\)'),
        ('DenseNet', r'DenseNet of 2\+2\+2\+2 layers'),
        ('ConvNeXt', r'ConvNeXt of 1\+2\+1\+1 blocks'),
        ('EfficientNet', r'EfficientNet of 1\+2\+2\+6\+5 blocks'),
        ('ViT', 'Vision Transformer of 3 blocks'),
    ],
)
def test_architecture_in_words(name, words):
    net = MODELS.build(copy.deepcopy(HOSTS[name][0]))
    found = describe_weights(net.state_dict())
    assert re.search(words, found), found


def test_stage_that_is_not_there():
    net = MODELS.build(copy.deepcopy(HOSTS['mmpretrain ResNet'][0]))
    with pytest.raises(UserError, match=r'ResNet has no stage 7; .* 4 \(stage4\)'):
        backbone_of(net).maps(torch.rand(1, 1, 32, 32), [7])


class WithoutMaps(nn.Module):
    """Like a ResNet by its parts, but they return vectors."""

    def __init__(self):
        super().__init__()
        self.layer1 = nn.Flatten()

    def forward(self, x):
        return self.layer1(x)


def test_something_else_than_a_map():
    with pytest.raises(UserError, match=r'no map .* at 1, but \(2, 9\)'):
        backbone_of(WithoutMaps()).maps(torch.rand(2, 1, 3, 3), [1])


class LeavesOut(WithoutMaps):
    def forward(self, x):
        return x


def test_part_that_is_not_passed():
    with pytest.raises(UserError, match='LeavesOut did not pass 1'):
        backbone_of(LeavesOut()).maps(torch.rand(2, 1, 3, 3), [1])
