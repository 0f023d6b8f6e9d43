"""Train on one image set, test on another."""

import numpy as np
import pytest

from medssl_mm.datasets.image_sets import IMAGE_SETS
from medssl_mm.datasets.shared_sets import train_on_test_on
from medssl_mm.errors import UserError
from medssl_mm.registry import DATASETS
from tests.datasets.images import write_image_set

NIH = dict(type='medssl_mm.NIHChestXray14', split='made')
OTHER = dict(type='medssl_mm.ClassificationImages', split='made')


def made(root, name, **settings):
    row = IMAGE_SETS[name]
    write_image_set(root, patients=14, classes=row.classes, task=row.task)
    return dict(data_root=str(root), **settings)


def test_columns_of_both(tmp_path):
    first = made(tmp_path / 'nih-cxr14', 'nih-cxr14', **NIH)
    second = made(tmp_path / 'chexpert', 'chexpert', **OTHER)
    content = train_on_test_on(first, second)
    built = {name: DATASETS.build(dict(part)) for name, part in content.items()}
    names = built['train'].metainfo['classes']
    assert len(names) == 7 and 'Effusion' in names
    for name, images in built.items():
        assert images.metainfo['classes'] == names and images.subsets == [name]
        assert images.metainfo['task'] == 'multi-label'
    assert built['val'].data_root == first['data_root'] != built['test'].data_root
    # Patients take turns through the classes of their set: p0 has the first.
    raw = IMAGE_SETS['chexpert'].classes[0]
    assert raw == 'No Finding' and not built['test'].get_gt_labels().any()
    nih = IMAGE_SETS['nih-cxr14'].classes
    train = built['train']
    patients = [int(train[n]['patient_id'][1:]) for n in range(len(train))]
    expected = [[int(name == nih[p]) for name in names] for p in patients]
    np.testing.assert_array_equal(train.get_gt_labels(), expected)


def test_one_finding_of_the_second_set(tmp_path):
    """Chosen by its settings, before the sets are there."""
    first = dict(NIH, data_root='data/nih-cxr14', single_label=True)
    second = dict(type='medssl_mm.CheXpert', data_root='data/chexpert', split='x')
    content = train_on_test_on(first, dict(second, finding='Pleural Effusion'))
    assert content['train']['findings'] == content['test']['findings'] == ('Effusion',)
    assert not {'finding', 'single_label'} & {*content['train'], *content['test']}
    assert content['test'] == dict(second, findings=('Effusion',), subset='test')


def test_sets_that_do_not_fit():
    nih = dict(NIH, data_root='data/nih-cxr14')
    with pytest.raises(UserError, match='no finding is in both'):
        train_on_test_on(nih, dict(OTHER, data_root='data/ichallenge-amd'))
    with pytest.raises(UserError, match='to train on and to test on'):
        train_on_test_on(nih, nih)
    with pytest.raises(UserError, match='data/own.*does not exist'):
        train_on_test_on(nih, dict(OTHER, data_root='data/own'))


def test_pictures_in_both_sets_are_told(capsys):
    nih = dict(NIH, data_root='data/nih-cxr14')
    train_on_test_on(nih, dict(OTHER, data_root='data/pneumoniamnist'))
    assert 'hold pictures' not in capsys.readouterr().out
    train_on_test_on(nih, dict(NIH, data_root='data/nih1000'))
    assert 'hold pictures of nih-cxr14' in capsys.readouterr().out
