import pytest
import torch

from medssl_mm.backbones import backbone_of
from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS


def build(**settings):
    torch.manual_seed(0)
    net = MODELS.build(dict(type='mmpretrain.TIMMBackbone', in_channels=1, **settings))
    net.eval()
    return net


@pytest.mark.parametrize(
    'model, names, strides',
    [
        ('convnext_atto', ['stage1', 'stage2', 'stage3', 'stage4'], [4, 8, 16, 32]),
        (
            'resnet18',
            ['stem', 'stage1', 'stage2', 'stage3', 'stage4'],
            [2, 4, 8, 16, 32],
        ),
        (
            'mobilenetv3_small_050',
            ['stem', 'stage1', 'stage2', 'stage3', 'stage4'],
            [2, 4, 8, 16, 32],
        ),
    ],
)
def test_pyramids(model, names, strides):
    """A first map of stride 2 is number 0, so stages count alike."""
    net = build(model_name=model, features_only=True)
    backbone = backbone_of(net)
    assert list(backbone.names.values()) == names
    assert list(backbone.names)[-1] == 4 == backbone.last
    assert list(backbone.strides.values()) == strides
    images = torch.rand(2, 1, 64, 64)
    maps = backbone.maps(images, backbone.names)
    for (number, found), expected in zip(maps.items(), net(images), strict=True):
        torch.testing.assert_close(found, expected)
        assert found.shape[1] == backbone.channels[number]
        assert found.shape[2] * backbone.strides[number] == 64
    assert list(backbone.pooled(images, backbone.feature_taps())) == names
    assert backbone.outputs == len(names)


def test_channels_that_timm_has_last():
    net = build(
        model_name='swin_tiny_patch4_window7_224',
        features_only=True,
        embed_dim=12,
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 1, 1),
        img_size=56,
        strict_img_size=False,
    )
    backbone = backbone_of(net)
    images = torch.rand(1, 1, 56, 56)
    maps = backbone.maps(images, backbone.names)
    for (number, found), expected in zip(maps.items(), net(images), strict=True):
        assert found.shape[1] == backbone.channels[number]
        torch.testing.assert_close(found, expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    'tokens', [dict(), dict(reg_tokens=2), dict(class_token=False)]
)
def test_vision_transformer(tokens):
    net = build(
        model_name='vit_tiny_patch16_224',
        img_size=(48, 32),
        embed_dim=24,
        depth=3,
        num_heads=2,
        global_pool='avg' if tokens.get('class_token') is False else 'token',
        **tokens,
    )
    backbone = backbone_of(net)
    assert list(backbone.names.values()) == ['stem', 'block1', 'block2', 'block3']
    assert set(backbone.strides.values()) == {16}
    assert set(backbone.channels.values()) == {24}
    images = torch.rand(2, 1, 48, 32)
    last = backbone.maps(images, [3])[3]
    inner = net.timm_model
    expected = inner.forward_features(images)[:, inner.num_prefix_tokens :]
    assert last.shape == (2, 24, 3, 2)
    torch.testing.assert_close(last.flatten(2).mT, expected)


def test_network_without_maps():
    with pytest.raises(UserError, match='TIMMBackbone of ResNet .*features_only=True'):
        backbone_of(build(model_name='resnet18'))
