"""Encoders as the published comparison used them."""

import pytest

from medssl_mm.converters.architectures import ARCHITECTURES
from medssl_mm.encoders import (
    compared_encoder,
    encoder_names,
    load_encoder,
    read_settings,
)
from medssl_mm.encoders.compat import pads_as_tensorflow
from medssl_mm.errors import UserError


@pytest.mark.parametrize('name', encoder_names())
def test_none_pads_as_tensorflow(name):
    found = compared_encoder(f'random:{name}')
    other = read_settings(found.source.removeprefix('random:'))
    assert not pads_as_tensorflow(other)
    own = read_settings(name)
    assert bool(found.rule) == (other != own)
    # The same file, read by the same rules.
    assert other.file_names == own.file_names and other.converter == own.converter
    assert other.trained_on == own.trained_on
    # What was changed once is not changed again.
    assert compared_encoder(found.source) == (found.source, '')


@pytest.mark.parametrize(
    'name, architecture',
    [
        ('byol', 'resnet50'),
        ('simclr-v1', 'resnet50'),
        ('efficientnet-lite0', 'efficientnet-lite0'),
        ('efficientnet-lite2', 'efficientnet-lite2'),
    ],
)
def test_networks_are_those_of_torch(name, architecture):
    """That which tools/convert_checkpoint.py names for compat."""
    other = read_settings(compared_encoder(f'random:{name}').source.partition(':')[2])
    wanted = dict(ARCHITECTURES[architecture].backbone)
    found = {'depth': 50, 'style': 'pytorch', **other.backbone}
    assert {key: found[key] for key in wanted} == wanted


@pytest.mark.parametrize('name', ['moco-cxr_resnet18', 'moco-cxr_densenet121'])
def test_moco_cxr_sees_pictures_as_networks_of_imagenet(name):
    found = compared_encoder(f'random:{name}')
    other = read_settings(found.source.partition(':')[2])
    assert other.preprocessing == read_settings('resnet50').preprocessing
    assert other.backbone == read_settings(name).backbone
    assert found.rule == f'{name}_imagenet-224 for {name}'


def test_files_stay_where_they_are(tmp_path):
    assert compared_encoder('byol:a/b.pkl').source == 'byol_torch-padding:a/b.pkl'
    assert compared_encoder('random:resnet18') == ('random:resnet18', '')
    with pytest.raises(UserError, match='no encoder is called'):
        compared_encoder('byyol')


def test_an_own_description_that_pads_is_told(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        "encoder = dict(title='Mine', embedding_length=2048, "
        "backbone=dict(type='medssl_mm.ResNetSamePadding'))"
    )
    found = compared_encoder(f'random:{path}')
    assert found.source == f'random:{path}'
    assert 'mine pads as TensorFlow does' in found.rule
    # The networks differ, not only their names.
    strict = load_encoder('random:simclr-v1').backbone
    compat = load_encoder(compared_encoder('random:simclr-v1').source).backbone
    assert type(strict) is not type(compat)
