import pytest
from mmengine.registry import DefaultScope

from medssl_mm.models.utils import with_channels
from medssl_mm.registry import MODELS


def refuse():
    raise AssertionError('channels were not needed')


@pytest.mark.parametrize(
    'settings, filled',
    [
        (dict(type='medssl_mm.LocalContrastNeck'), dict(in_channels=6)),
        (dict(type='medssl_mm.DecorrelationHead'), dict(num_channels=6)),
        (
            dict(type='mmselfsup.MoCoV2Neck', out_channels=4),
            dict(in_channels=6, hid_channels=6),
        ),
        (dict(type='MoCoV2Neck', hid_channels=3), dict(in_channels=6)),
    ],
)
def test_what_is_left_out_is_filled_in(settings, filled):
    before = dict(settings)
    with DefaultScope.overwrite_default_scope('mmselfsup'):
        assert with_channels(settings, lambda: 6, MODELS) == {**settings, **filled}
    assert settings == before


@pytest.mark.parametrize(
    'settings',
    [
        dict(type='medssl_mm.LocalContrastNeck', in_channels=3),
        dict(type='medssl_mm.FeatureMSELoss'),
        dict(type='medssl_mm.NobodyKnowsThis'),
    ],
)
def test_the_rest_stays(settings):
    assert with_channels(settings, refuse, MODELS) == settings
