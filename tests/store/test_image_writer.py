import gc
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.store.image_writer import ImageStoreWriter
from medssl_mm.store.images import ImageStore
from tests.datasets.images import make_picture, write_image_set


def writer_at(root, **settings):
    given = dict(
        name='made',
        task='single-label',
        classes=('no', 'yes'),
        channels=1,
        size=(16, 16),
    )
    return ImageStoreWriter.create(root, **dict(given, **settings))


def test_nothing_is_published_before_finish(tmp_path):
    writer = writer_at(tmp_path / 'set')
    writer.add_case('b', make_picture(1, 16, 1), 0)
    with pytest.raises(UserError, match='was interrupted'):
        ImageStore(tmp_path / 'set')
    writer.add_case('a', make_picture(0, 16, 1), 1)
    store = writer.finish()
    assert store.case_ids == ('a', 'b')
    assert not writer.staging.exists()


def test_what_was_staged_is_found_again(tmp_path):
    first = writer_at(tmp_path / 'set')
    first.add_case('a', make_picture(0, 16, 1), 0, patient_id='p')
    with open(next((first.staging / 'images').glob('*.jsonl')), 'a') as file:
        file.write('{"info": {"image_id": "cut of')  # killed while writing
    again = writer_at(tmp_path / 'set')
    assert again.read_case('a').patient_id == 'p'
    assert again.read_case('b') is None
    again.add_case('b', make_picture(1, 16, 1), 1)
    store = again.finish()
    np.testing.assert_array_equal(store.read(0), make_picture(0, 16, 1))
    assert store.labels.tolist() == [0, 1]


def test_a_staged_image_whose_pixels_are_missing_counts_as_not_done(tmp_path):
    writer = writer_at(tmp_path / 'set')
    writer.add_case('a', make_picture(0, 16, 1), 0)
    pixels = next((writer.staging / 'images').glob('*.bin'))
    pixels.write_bytes(pixels.read_bytes()[:-1])
    assert writer_at(tmp_path / 'set').staged == []


def test_additions_keep_the_images_that_are_there(tmp_path):
    before = write_image_set(tmp_path / 'set', patients=2)
    writer = writer_at(tmp_path / 'set')
    writer.add_case('a-first', make_picture(77, 16, 1), 1)
    writer.add_case('p0-1', make_picture(78, 16, 1), 1)
    store = writer.finish(remove=['p1-0'])
    assert store.case_ids == ('a-first', 'p0-0', 'p0-1', 'p1-1')
    np.testing.assert_array_equal(store.read(1), make_picture(0, 16, 1))
    np.testing.assert_array_equal(store.read(2), make_picture(78, 16, 1))
    np.testing.assert_array_equal(store.read(3), make_picture(101, 16, 1))
    assert before.name == store.name


def test_a_new_description_keeps_the_pixels(tmp_path):
    write_image_set(tmp_path / 'set', patients=2)
    writer = writer_at(tmp_path / 'set')
    info = writer.read_case('p1-0')
    writer.refresh_case(info.moved('elsewhere.png', None, (('elsewhere.png', 5, 6),)))
    store = writer.finish()
    assert [i.source_file for i in store.infos()][2] == 'elsewhere.png'
    np.testing.assert_array_equal(store.read(2), make_picture(100, 16, 1))


def test_dropped_and_staged_again(tmp_path):
    writer = writer_at(tmp_path / 'set')
    writer.add_case('a', make_picture(0, 16, 1), 0)
    writer.drop_staged('a')
    assert writer.staged == []
    writer.add_case('a', make_picture(5, 16, 1), 0)
    np.testing.assert_array_equal(writer.finish().read(0), make_picture(5, 16, 1))


@pytest.mark.parametrize('value', [0, 255])
def test_constant_images_keep_their_place(tmp_path, value):
    writer = writer_at(tmp_path / 'set', channels=3)
    blank = np.full((16, 16, 3), value, np.uint8)
    red = np.zeros((16, 16, 3), np.uint8) + np.uint8([200, 10, 10])
    pictures = [blank, make_picture(1), blank, red, make_picture(2), blank]
    for number, picture in enumerate(pictures):
        writer.add_case(str(number), picture, 0)
    store = writer.finish()
    for number, picture in enumerate(pictures):
        np.testing.assert_array_equal(store.read(number), picture)
    assert [bool(i.content_sha256) for i in store.infos()] == [
        False,
        True,
        False,
        False,
        True,
        False,
    ]
    # Once more, from the published file.
    writer = writer_at(tmp_path / 'set', channels=3)
    writer.add_case('9', make_picture(9), 1)
    store = writer.finish()
    for number, picture in enumerate(pictures):
        np.testing.assert_array_equal(store.read(number), picture)


def test_a_half_published_set_is_imported_anew(tmp_path):
    write_image_set(tmp_path / 'set', patients=2)
    write_image_set(tmp_path / 'other', patients=2, each=1)
    (tmp_path / 'other' / 'images.b2nd').replace(tmp_path / 'set' / 'images.b2nd')
    assert writer_at(tmp_path / 'set').published == []


@pytest.mark.parametrize(
    'image, label, message',
    [
        (np.zeros((8, 16), np.uint8), 0, r'expected uint8 of shape \(16, 16\)'),
        (np.zeros((16, 16), np.float32), 0, 'got float32'),
        (make_picture(0, 16, 1), 2, 'between 0 and 1'),
    ],
)
def test_wrong_images_and_labels(tmp_path, image, label, message):
    with pytest.raises(ValueError, match=message):
        writer_at(tmp_path / 'set').add_case('a', image, label)


def test_wrong_number_of_labels(tmp_path):
    writer = writer_at(tmp_path / 'set', task='multi-label')
    for label in ([1], [0, 2], [-1, 0]):
        with pytest.raises(ValueError, match='2 values of 0 or 1'):
            writer.add_case('a', make_picture(0, 16, 1), label)


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(task='both'), "must be 'multi-label' or 'single-label'"),
        (dict(channels=2), 'channels must be 1 or 3'),
    ],
)
def test_wrong_settings(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        writer_at(tmp_path / 'set', **settings)


@pytest.mark.parametrize(
    'change',
    [
        dict(classes=('yes', 'no')),
        dict(channels=3),
        dict(size=(8, 8)),
        dict(task='multi-label'),
    ],
)
def test_another_set_needs_overwrite(tmp_path, change):
    write_image_set(tmp_path / 'set')
    with pytest.raises(UserError, match='was made with .*--overwrite'):
        writer_at(tmp_path / 'set', **change)
    writer = writer_at(tmp_path / 'set', overwrite=True, **change)
    assert writer.read_case('p0-0') is None


def test_discard_leaves_nothing(tmp_path):
    writer = writer_at(tmp_path / 'set')
    writer.add_case('a', make_picture(0, 16, 1), 0)
    writer.discard()
    assert not (tmp_path / 'set').exists()


def open_files(root):
    """Files below a folder that this process has open."""
    links = (Path('/proc/self/fd') / n for n in os.listdir('/proc/self/fd'))
    return [os.readlink(n) for n in links if n.exists() and str(root) in os.readlink(n)]


def test_part_files_are_closed(tmp_path):
    """When the set is published or discarded, and when other imports follow."""
    writers = []
    for number in range(5):
        writer = writer_at(tmp_path / str(number))
        for copied in (writer, pickle.loads(pickle.dumps(writer))):
            copied.add_case('a', make_picture(number, 16, 1), 0)
        assert len(list((writer.staging / 'images').glob('*.bin'))) == 1
        writers.append(writer)
    with warnings.catch_warnings():
        warnings.simplefilter('error', ResourceWarning)
        assert len(open_files(tmp_path)) == 2 * 2
        writers[0].add_case('b', make_picture(9, 16, 1), 0)
        assert writers[0].finish().case_ids == ('a', 'b')
        for writer in writers[1:]:
            writer.discard()
        gc.collect()
    assert open_files(tmp_path) == []
