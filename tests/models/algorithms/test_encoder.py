"""Pretraining with backbones of all families."""

import copy

import pytest

from medssl_mm.backbones import backbone_of
from medssl_mm.models.algorithms.encoder import Encoder
from tests.backbones.test_hosts import HOSTS
from tests.models.algorithms.toy import batches, build_ours, train

TIMM = dict(
    type='mmpretrain.TIMMBackbone',
    model_name='convnext_atto',
    features_only=True,
    in_channels=1,
    depths=(1, 1, 1, 1),
    dims=(4, 8, 16, 32),
)
FAMILIES = {
    **{name: settings for name, (settings, *_) in HOSTS.items()},
    'timm': TIMM,
}
NECK = dict(type='mmselfsup.MoCoV2Neck', hid_channels=8, out_channels=16)
DECORRELATION = dict(type='medssl_mm.DecorrelationHead', num_groups=4, eps=1e-2)


def levels(*stages):
    return [
        dict(
            stage=stage,
            neck=dict(
                type='medssl_mm.LocalContrastNeck',
                hid_channels=8,
                out_channels=8,
                matching='feature',
                grid_size=2,
            ),
            loss=dict(type='medssl_mm.LocalInfoNCELoss'),
        )
        for stage in stages
    ]


@pytest.mark.exact
@pytest.mark.parametrize('settings', FAMILIES.values(), ids=FAMILIES)
def test_every_family_is_pretrained_with_all_parts(settings):
    """No channels in the config; the last stage and one before it."""
    settings = copy.deepcopy(settings)
    if 'VisionTransformer' in settings['type']:
        settings['img_size'] = 32
    probe = build_ours(backbone=copy.deepcopy(settings), neck=NECK)
    last = backbone_of(probe.backbone).last
    model = build_ours(
        levels=levels(last - 1, last),
        backbone=settings,
        neck=NECK,
        decorrelation=DECORRELATION,
    )
    size = 32 if 'VisionTransformer' in settings['type'] else 64
    logs, grads = train(model, batches(steps=2, size=size))[-1]
    assert {name for name in logs if name.startswith('loss')} == {
        'loss_contrastive',
        f'loss_stage{last - 1}_local_info_nce',
        f'loss_stage{last}_local_info_nce',
    }
    assert all(value.isfinite() for value in logs.values())
    # All weights learn, but for norms of the last map that have no output.
    without = {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and name not in grads
    }
    assert not without
    assert isinstance(model.encoder_k.module, Encoder)
    names = {name.split('.')[2] for name in model.state_dict() if 'encoder_k.m' in name}
    assert names == {'0', '1', '2', '3'}


@pytest.mark.exact
def test_last_stage_is_the_backbone_s():
    """Not the fourth: EfficientNet has six."""
    settings = dict(type='medssl_mm.EfficientNetAnyChannels')
    model = build_ours(backbone=settings, neck=NECK)
    assert model.stages == (6,)
    assert model.neck.mlp[0].in_features == 1280
    with pytest.raises(ValueError, match=r'levels\[0\]: stage must be .* 6, got 7'):
        build_ours(levels=levels(7), backbone=settings, neck=NECK)


def test_output_names_its_parts():
    model = build_ours(levels=levels(3))
    images = next(iter(batches(steps=1)))[0]
    for encoder, backbone in (
        (model.encoder, model.backbone),
        (model.encoder_k.module, model.encoder_k.module[0]),
    ):
        found = encoder(images)
        assert set(found.maps) == {3, 4}
        assert found.embedding.shape == (8, 16)
        assert encoder.backbone is backbone and encoder.decorrelation is None
        assert list(found.level_necks) == ['stage3_local_info_nce']
    assert (
        model.encoder.level_necks['stage3_local_info_nce']
        is (model.multi_level_head.necks['stage3_local_info_nce'])
    )
    plain = build_ours()
    assert not plain.encoder.level_necks


@pytest.mark.exact
@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(type='mmpretrain.VGG', depth=11), 'VGG .* ResNet, DenseNet, ConvNeXt'),
        (
            dict(type='mmpretrain.TIMMBackbone', model_name='resnet18'),
            'features_only=True',
        ),
    ],
)
def test_other_networks_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build_ours(backbone=settings)
