import pytest

from medssl_mm.aliases import (
    ALIASES,
    Alias,
    current_name,
    current_settings,
    with_former_names,
)
from medssl_mm.datasets import transforms
from medssl_mm.models.heads import DecorrelationHead
from medssl_mm.registry import DATA_SAMPLERS, MODELS, TRANSFORMS

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


def test_types_of_before_are_built():
    """As configs in work directories and checkpoints name them."""
    crop = dict(type='medssl_mm.RandomSliceCrop', size=8)
    views = TRANSFORMS.build(
        dict(
            type='medssl_mm.SliceViews',
            crop=crop,
            transforms=[dict(type='medssl_mm.ResizeSlice', size=4)],
        )
    )
    assert isinstance(views, transforms.CropViews)
    assert isinstance(views.crop, transforms.RandomCropView)
    assert 'ResizeAndPad' in repr(views)
    affine = TRANSFORMS.build(dict(type='medssl_mm.RandomSliceAffine', size=8))
    assert isinstance(affine, transforms.RandomAffineView)
    sampler = DATA_SAMPLERS.get('medssl_mm.SliceSampler')
    assert sampler.__name__ == 'ResumableSampler'
    for alias in ALIASES:
        root = DATA_SAMPLERS if 'Sampler' in alias.old else TRANSFORMS
        if not alias.argument:
            assert root.get(f'medssl_mm.{alias.old}').__name__ == alias.new


def test_former_names_for_digests():
    config = dict(
        type='medssl_mm.CropViews',
        note='medssl_mm.CropViews',
        steps=[dict(type='medssl_mm.BlurJitter'), (dict(type='medssl_mm.CropViews'),)],
    )
    found = with_former_names(config)
    assert found == dict(
        type='medssl_mm.SliceViews',
        note='medssl_mm.CropViews',
        steps=[
            dict(type='medssl_mm.BlurJitter'),
            (dict(type='medssl_mm.SliceViews'),),
        ],
    )
    assert config['type'] == 'medssl_mm.CropViews'
