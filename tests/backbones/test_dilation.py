"""Strided and dilated networks make the same of the same weights."""

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from medssl_mm.backbones import (
    backbone_of,
    different_taps,
    set_common_stride,
    tap_distances,
)
from medssl_mm.backbones.dilation import DilatedAvgPool2d
from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS

SMALL = dict(base_channels=4, stem_channels=4, in_channels=1)
ALL = dict(out_indices=(0, 1, 2, 3))
# Scope, type and settings of every network that offers a stride.
NETWORKS = {
    'mmselfsup ResNet-18': (
        'mmselfsup',
        dict(type='ResNet', depth=18, out_indices=(1, 2, 3, 4)),
    ),
    'mmseg ResNet-34': ('mmseg', dict(type='ResNet', depth=34)),
    'mmseg ResNet-50': ('mmseg', dict(type='ResNet', depth=50)),
    'mmseg ResNet-50 caffe': ('mmseg', dict(type='ResNet', depth=50, style='caffe')),
    'mmseg ResNetV1c-18': ('mmseg', dict(type='ResNetV1c', depth=18)),
    'mmseg ResNetV1d-50': ('mmseg', dict(type='ResNetV1d', depth=50)),
    'mmpretrain ResNet-18': ('mmpretrain', dict(type='ResNet', depth=18, **ALL)),
    'mmpretrain ResNetV1d-50': ('mmpretrain', dict(type='ResNetV1d', depth=50, **ALL)),
    'ResNet_CIFAR-18': ('mmpretrain', dict(type='ResNet_CIFAR', depth=18, **ALL)),
    'ResNetSmallStem-18': (
        'mmpretrain',
        dict(type='medssl_mm.ResNetSmallStem', depth=18, **ALL),
    ),
}


def build(scope, settings):
    with DefaultScope.overwrite_default_scope(scope):
        network = MODELS.build({**SMALL, **settings}).double()
    network.eval()
    return network


def build_dilated(scope, settings, stride, **further):
    settings = dict(settings, network=settings['type'], type='medssl_mm.DilatedResNet')
    return build(scope, dict(settings, output_stride=stride, **further))


def trained(network):
    """Give every scale, shift and statistic a value of its own."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for values in (module.weight.data, module.running_var):
                values.uniform_(0.5, 1.5)
            for values in (module.bias.data, module.running_mean):
                values.normal_(0, 0.3)
    return network


def shared(maps, strides, reference):
    """Every map at the positions that the network of strides has."""
    steps = [whole // own for own, whole in zip(strides, reference)]
    return [level[:, :, ::step, ::step] for level, step in zip(maps, steps)]


def stage_strides(network):
    return [s for place, s in backbone_of(network).strides.items() if place]


@pytest.mark.parametrize('name', NETWORKS)
def test_dilated_and_strided_agree(name):
    strided = trained(build(*NETWORKS[name]))
    reference = stage_strides(strided)
    for output_stride in reference[:3]:
        dilated = build_dilated(*NETWORKS[name], output_stride)
        # The names of the weights are the same, too.
        dilated.load_state_dict(strided.state_dict())
        strides = stage_strides(dilated)
        assert strides == [min(s, output_stride) for s in reference]
        assert not different_taps(tap_distances(dilated), tap_distances(strided))
        for size in ((64, 32), (45, 70)):
            images = torch.randn(1, 1, *size, dtype=torch.double)
            with torch.no_grad():
                expected, found = strided(images), dilated(images)
            torch.testing.assert_close(
                shared(found, strides, reference), list(expected), rtol=0, atol=1e-10
            )


def test_gradients_agree():
    scope, settings = NETWORKS['mmseg ResNetV1d-50']
    strided = trained(build(scope, settings))
    dilated = build_dilated(scope, settings, 8)
    dilated.load_state_dict(strided.state_dict())
    images = torch.randn(1, 1, 64, 64, dtype=torch.double)
    strided(images)[-1].square().sum().backward()
    dilated(images)[-1][:, :, ::4, ::4].square().sum().backward()
    for (name, one), other in zip(strided.named_parameters(), dilated.parameters()):
        torch.testing.assert_close(other.grad, one.grad, msg=name)


def test_the_settings_of_hosts_make_another_network():
    strides = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    strided = build('mmseg', dict(type='ResNet', depth=18))
    for depth, contract, other in (
        (18, True, 'layer3.0.conv2'),
        (18, False, 'layer3.0.conv1'),
        (50, False, 'layer3.0.conv2'),
        (50, True, ''),  # what DilatedResNet makes
    ):
        settings = dict(type='ResNet', depth=depth)
        strided = tap_distances(build('mmseg', settings))
        host = build('mmseg', dict(settings, contract_dilation=contract, **strides))
        found = different_taps(tap_distances(host), strided)
        assert next(iter(found), '') == other


def test_legacy_dilation_is_the_network_of_before():
    strides = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    for scope, further in (('mmseg', dict(contract_dilation=True)), ('mmselfsup', {})):
        settings = dict(type='ResNet', depth=18)
        before = trained(build(scope, dict(settings, **strides, **further)))
        legacy = build_dilated(scope, settings, 16, legacy_dilation=True)
        legacy.load_state_dict(before.state_dict())
        images = torch.randn(1, 1, 64, 64, dtype=torch.double)
        with torch.no_grad():
            torch.testing.assert_close(legacy(images), before(images))


@pytest.mark.parametrize('dilation', [1, 2, 3])
def test_dilated_mean_equals_a_loop(dilation):
    x = torch.randn(2, 3, 5, 7, dtype=torch.double)
    expected = torch.empty_like(x)
    for i in range(5):
        for j in range(7):
            rows = [r for r in (i, i + dilation) if r < 5]
            columns = [c for c in (j, j + dilation) if c < 7]
            cells = [x[:, :, r, c] for r in rows for c in columns]
            expected[:, :, i, j] = torch.stack(cells).mean(0)
    torch.testing.assert_close(DilatedAvgPool2d(2, dilation)(x), expected)


def test_taps_say_pixels():
    network = build('mmpretrain', dict(type='ResNet', depth=18))
    taps = tap_distances(network)
    assert taps['conv1'] == 1 and taps['maxpool'] == 2
    assert (taps['layer1.0.conv1'], taps['layer4.0.conv1']) == (4, 16)
    assert taps['layer4.0.conv2'] == taps['layer4.1.conv1'] == 32
    assert 'layer4.0.downsample.0' not in taps  # 1 x 1
    assert tap_distances(nn.Identity()) is None


def test_a_stage_that_one_lacks_is_no_difference():
    whole = build('mmseg', dict(type='ResNet', depth=18))
    settings = dict(type='ResNet', depth=18, num_stages=3, out_indices=(0, 1, 2))
    settings.update(strides=(1, 2, 2), dilations=(1, 1, 1))
    taps = tap_distances(build('mmseg', settings)), tap_distances(whole)
    assert not different_taps(*taps) and len(taps[0]) < len(taps[1])


def test_what_cannot_be_dilated_is_said():
    settings = dict(type='medssl_mm.ResNetSamePadding', depth=18)
    with pytest.raises(UserError, match=r'layer4\.0\.conv1 .* cannot be dilated'):
        build_dilated('mmpretrain', settings, 16)
    with pytest.raises(UserError, match=r'output_stride=5 .* 4, 8, 16, 32'):
        build_dilated('mmseg', dict(type='ResNet', depth=18), 5)
    with pytest.raises(UserError, match='instead of strides, dilations: leave them'):
        build_dilated('mmseg', dict(type='ResNet', depth=18), 8, strides=1, dilations=1)


def test_networks_are_brought_to_one_stride():
    scope, settings = NETWORKS['mmpretrain ResNet-18']
    one, other = build(scope, settings), build_dilated(scope, settings, 16)
    other.load_state_dict(one.state_dict())
    assert set_common_stride({'a': one, 'b': other}) == 16
    images = torch.randn(1, 1, 64, 64, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(one(images), other(images), rtol=0, atol=1e-10)
    assert set_common_stride({'a': one, 'b': other}, 8) == 8
    assert stage_strides(one) == stage_strides(other) == [4, 8, 8, 8]
    with pytest.raises(UserError, match=r'a has stride 8, which cannot be made 16'):
        set_common_stride({'a': one, 'b': other}, 16)
    fixed = build('mmpretrain', dict(type='medssl_mm.ResNetSamePadding', depth=18))
    with pytest.raises(UserError, match=r'of c cannot be brought to stride 8'):
        set_common_stride({'a': one, 'c': fixed})
