import pytest

from medssl_mm.aliases import Alias, current_name, current_settings
from medssl_mm.models.heads import DecorrelationHead
from medssl_mm.registry import MODELS

OLD = {
    'ReleaseDecorrelation': dict(
        type='medssl_mm.DecorrelationHead',
        num_channels=8,
        num_groups=2,
        legacy='bn3',
    ),
    'ReleaseLocalLoss': dict(
        type='medssl_mm.LocalInfoNCELoss', temperature=0.5, legacy='release'
    ),
}


@pytest.mark.parametrize('new, settings', OLD.items(), ids=OLD)
def test_old_arguments_choose_the_type_of_today(new, settings):
    before = dict(settings)
    assert type(MODELS.build(settings)).__name__ == new
    assert settings == before


def test_the_notice_names_both():
    notices = []
    current_settings(OLD['ReleaseDecorrelation'], notices.append)
    (notice,) = notices
    for fact in ('DecorrelationHead', "legacy='bn3'", 'ReleaseDecorrelation'):
        assert fact in notice


def test_argument_that_chose_nothing():
    head = MODELS.build(
        dict(type='medssl_mm.DecorrelationHead', num_channels=8, legacy=None)
    )
    assert isinstance(head, DecorrelationHead)


def test_value_that_never_was():
    with pytest.raises(ValueError, match="legacy was None or 'bn3', got 'bn2'"):
        MODELS.build(
            dict(type='medssl_mm.DecorrelationHead', num_channels=8, legacy='bn2')
        )


def test_names_of_before():
    notices = []
    table = (Alias('OldName', 'NewName'), Alias('Other', 'Third', 'how', 'so'))
    assert current_name('OldName', notices.append, table) == 'NewName'
    assert len(notices) == 1
    assert 'medssl_mm.OldName' in notices[0]
    assert 'medssl_mm.NewName' in notices[0]
    assert current_name('Other', notices.append, table) == 'Other'
    assert current_name('NewName', notices.append, table) == 'NewName'
    assert len(notices) == 1
