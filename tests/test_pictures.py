import argparse

import numpy as np
import pytest
from PIL import Image

from medssl_mm.errors import UserError
from medssl_mm.pictures import add_picture_arguments, open_pictures, pictures_of
from tests.datasets.images import make_picture, write_image_set


def opened(*arguments):
    parser = argparse.ArgumentParser()
    add_picture_arguments(parser)
    return open_pictures(parser.parse_args([str(part) for part in arguments]))


def write(path, seed=0, grey=False, deep=False):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (20, 24) if grey else (20, 24, 3), dtype=np.uint8)
    if deep:
        values = values.astype(np.uint16) * 200
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return values


@pytest.fixture
def eyes(tmp_path):
    """Folders of two classes; both eyes of three persons."""
    for number, name in enumerate(['healthy/1', 'healthy/2', 'ill/3']):
        for side in ('left', 'right'):
            write(tmp_path / 'eyes' / f'{name}_{side}.png', number)
    return tmp_path / 'eyes'


def test_folders_of_pictures_are_classes(eyes):
    found = opened(eyes, '--patient-pattern', r'/(\d+)_')
    assert len(found) == 6 and found.classes == ('healthy', 'ill')
    assert found.image_ids[0] == 'healthy/1_left'
    assert found.patients == ('1', '1', '2', '2', '3', '3') and found.has_patients
    assert [found.label(row) for row in (0, 5)] == ['healthy', 'ill']
    np.testing.assert_array_equal(
        found.read(4), np.array(Image.open(eyes / 'ill/3_left.png'))
    )
    assert not opened(eyes).has_patients


def test_single_files_have_no_classes(eyes):
    found = opened(eyes / 'ill/3_left.png', eyes / 'healthy/1_left.png')
    assert found.classes == () and found.image_ids == ('3_left', '1_left')
    assert found.label(0) == ''


def test_some_pictures_keep_what_is_known_of_them(eyes):
    whole = opened(eyes, '--patient-pattern', r'/(\d+)_')
    some = whole.take(whole.rows_of(['3_left', 'healthy/1_right']))
    assert some.image_ids == ('ill/3_left', 'healthy/1_right')
    assert some.patients == ('3', '1') and some.label(0) == 'ill'
    np.testing.assert_array_equal(some.read(0), whole.read(4))
    assert len({whole.content, some.content, whole.take([1]).content}) == 3
    with pytest.raises(UserError, match="no pictures of eyes are called '9'"):
        whole.rows_of(['9'])


def test_spread_takes_the_classes_in_turn_and_other_patients(eyes):
    found = opened(eyes, '--patient-pattern', r'/(\d+)_')
    for seed in range(5):
        chosen = found.take(found.spread(2, seed))
        assert [chosen.label(row) for row in range(2)] == ['healthy', 'ill']
        chosen = found.take(found.spread(9, seed))
        assert sorted(chosen.patients) == ['1', '2', '3']


@pytest.mark.parametrize('name', ['ichallenge-amd', 'ichallenge_amd'])
def test_a_data_set_is_called_as_its_store_or_as_its_file(tmp_path, monkeypatch, name):
    write_image_set(tmp_path / 'data/ichallenge-amd', channels=3)
    monkeypatch.chdir(tmp_path)
    found = opened(name)
    assert len(found) == 12 and found.classes == ('no', 'yes')


def test_pictures_that_have_been_read():
    arrays = dict(b=np.zeros((2, 3), np.uint8), a=np.ones((4, 5, 3), np.uint8))
    found = pictures_of('made', arrays)
    assert found.image_ids == ('b', 'a') and found.label(0) == ''
    for row, array in enumerate(arrays.values()):
        np.testing.assert_array_equal(found.read(row), array)


def test_deep_pictures_are_brought_to_8_bit(tmp_path):
    values = write(tmp_path / 'a.png', grey=True, deep=True)
    found = opened(tmp_path / 'a.png').read(0)
    assert found.dtype == np.uint8 and found.shape == values.shape
    assert found.min() == 0 and found.max() == 255


def test_a_changed_file_is_another_content(eyes):
    before = opened(eyes).content
    write(eyes / 'ill/3_left.png', seed=9)
    assert opened(eyes).content != before


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['nowhere'], 'nowhere does not exist'),
        (['empty'], 'holds no picture'),
        (['eyes', '--subsets', 'test'], 'has no subsets'),
        (['eyes', '--patient-pattern', '(x'], 'not a regular expression'),
    ],
)
def test_what_cannot_be_opened_is_named(eyes, monkeypatch, arguments, message):
    monkeypatch.chdir(eyes.parent)
    (eyes.parent / 'empty').mkdir()
    with pytest.raises(UserError, match=message):
        opened(*arguments)


def test_options_that_the_pictures_cannot_use(tmp_path):
    """The split of a config and the patients of an import stay as they are."""
    write_image_set(tmp_path / 'set')
    path = tmp_path / 'some.py'
    path.write_text(CONFIG.format(root=str(tmp_path / 'set')))
    patients = ('--patient-pattern', r'/(\d+)_')
    for pictures, options, message in (
        (path, ('--split', 'other'), 'some.py is a config, .*; leave --split out'),
        (path, patients, 'some.py knows the patients .*; leave --patient-pattern out'),
        (tmp_path / 'set', patients, 'set knows the patients .* --patient-pattern out'),
    ):
        with pytest.raises(UserError, match=message):
            opened(pictures, *options)


def test_a_damaged_file_is_named_when_it_is_read(eyes):
    path = eyes / 'ill/3_left.png'
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match='3_left.png'):
        opened(eyes).read(4)


CONFIG = """default_scope = 'mmpretrain'
images = dict(
    type='medssl_mm.ClassificationImages', data_root={root!r}, split='made',
    labelled=True, test_mode=True, pipeline=[dict(type='medssl_mm.PackImage')],
)
train_dataloader = dict(dataset=dict(subset='train', **images))
val_dataloader = dict(dataset=dict(subset='val', **images))
test_dataloader = dict(dataset=dict(subset='test', **images))
"""


@pytest.mark.parametrize('channels', [1, 3])
def test_config_and_image_set_give_plain_pictures(tmp_path, channels):
    write_image_set(tmp_path / 'set', channels=channels)
    path = tmp_path / 'some.py'
    path.write_text(CONFIG.format(root=str(tmp_path / 'set')))
    whole = opened(tmp_path / 'set')
    assert len(whole) == 12 and whole.classes == ('no', 'yes')
    some = opened(path, '--subsets', 'val', 'test')
    assert some.image_ids == ('p1-0', 'p1-1', 'p0-0', 'p0-1')
    assert some.patients == ('p1', 'p1', 'p0', 'p0') and some.has_patients
    assert [some.label(row) for row in range(4)] == ['yes', 'yes', 'no', 'no']
    for row, (patient, number) in enumerate([(1, 0), (1, 1), (0, 0), (0, 1)]):
        expected = make_picture(100 * patient + number, 16, channels)
        np.testing.assert_array_equal(some.read(row), expected)
        [place] = whole.rows_of([some.image_ids[row]])
        np.testing.assert_array_equal(whole.read(place), expected)
    assert opened(path).image_ids == ('p0-0', 'p0-1')
    # As of configs/data: an image set alone.
    path.write_text(
        "images = dict(type='medssl_mm.ClassificationImages', split='made', "
        f'data_root={str(tmp_path / "set")!r})'
    )
    assert sorted(opened(path).image_ids) == sorted(whole.image_ids)
    assert opened(path, '--subsets', 'test').image_ids == ('p0-0', 'p0-1')
    split = opened(tmp_path / 'set', '--split', 'made', '--subsets', 'val')
    assert split.image_ids == ('p1-0', 'p1-1')
    with pytest.raises(UserError, match='needs --split'):
        opened(tmp_path / 'set', '--subsets', 'val')
