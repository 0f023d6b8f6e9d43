"""Image sets as the source of features: splits by image, choices of labels."""

import pytest

from medssl_mm.checkpoint_features.images import (
    ImageSubsets,
    config_of_images,
    describe_data,
)
from medssl_mm.checkpoint_features.subsets import SUBSETS, open_labelled
from medssl_mm.errors import UserError
from medssl_mm.store.splits import Split, save_split
from tests.datasets.images import write_image_set


def subsets_of(root, split, **settings):
    images = dict(type='medssl_mm.ClassificationImages', data_root=str(root))
    return ImageSubsets(config_of_images(dict(images, split=split, **settings), 'here'))


@pytest.fixture
def several(tmp_path):
    names = ('Effusion', 'Edema', 'Mass')
    write_image_set(tmp_path / 'set', 8, classes=names, task='multi-label')
    return tmp_path / 'set'


def test_a_split_by_image_may_part_patients(several):
    parts = dict(
        train=[f'p{n}-0' for n in range(2, 8)],
        val=[f'p{n}-1' for n in range(2, 8)],
        test=['p0-0', 'p1-0', 'p0-1'],
    )
    save_split(several, Split('made-compat', 'made', parts, by='image'))
    subsets, labels = open_labelled(subsets_of(several, 'made-compat'), SUBSETS)
    assert set(subsets['train'].patients) == set(subsets['val'].patients)
    assert len(labels['test'].targets) == 3
    # One by patient that says so of another set is still refused.
    subsets['val'].dataset._metainfo['split_by'] = 'patient'
    with pytest.raises(UserError, match=r'6 patient\(s\) are in the train'):
        from medssl_mm.checkpoint_features import check_no_shared_patients

        check_no_shared_patients([*subsets.values()])


@pytest.mark.parametrize(
    'settings',
    [
        dict(finding='Pleural Effusion'),
        dict(findings=['Mass', 'Edema']),
        dict(uncertain='ones'),
    ],
)
def test_features_do_not_depend_on_labels(several, settings):
    plain = subsets_of(several, 'made').subset('train')
    chosen = subsets_of(several, 'made', **settings).subset('train')
    assert describe_data(chosen) == describe_data(plain)


def test_a_choice_of_images_is_told_by_their_names(several):
    plain = subsets_of(several, 'made').subset('train')
    chosen = subsets_of(several, 'made', single_label=['Mass']).subset('train')
    assert len(chosen.image_ids) < len(plain.image_ids)
    assert describe_data(chosen)['images'] != describe_data(plain)['images']
