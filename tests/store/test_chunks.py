"""One file of slices: exact, verified, one chunk at a time."""

import os

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.store import SliceStore
from medssl_mm.store.chunks import (
    ChunkReader,
    compress_image,
    write_chunks,
)
from tests.conftest import writer_at


@pytest.mark.parametrize('dtype', ['int16', 'uint8', 'uint16', 'float32'])
def test_slices_come_back_bit_for_bit(tmp_path, dtype):
    rng = np.random.default_rng(0)
    image = (rng.normal(size=(5, 33, 47)) * 50 + 100).astype(dtype)
    image[2] = 0  # a constant slice is stored as a special chunk
    label = rng.integers(0, 2, image.shape).astype(np.uint8)
    writer = writer_at(tmp_path / 's')
    writer.add_case('a', image, label)
    store = writer.finish()
    for index in (4, 2, 0, 2, -1):
        np.testing.assert_array_equal(store.read_slice('a', index), image[index])
        np.testing.assert_array_equal(store.read_label_slice('a', index), label[index])
    np.testing.assert_array_equal(store.read_volume('a'), image)
    np.testing.assert_array_equal(store.read_label_volume('a'), label)
    assert store.read_slice('a', 0).dtype == dtype


def test_big_endian_and_strided_input(tmp_path):
    image = np.arange(3 * 20 * 24).reshape(24, 20, 3).astype('>i2').T
    writer = writer_at(tmp_path / 's')
    writer.add_case('a', image.astype('i2', order='F'))
    np.testing.assert_array_equal(writer.finish().read_volume('a'), image)


def test_reading_touches_one_chunk(make_store, tmp_path):
    store = make_store(tmp_path / 's', patients=1)
    path = store.root / 'cases' / 'p0-0' / 'image.b2nd'
    whole = store.read_volume('p0-0')
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)
    fresh = SliceStore(store.root)
    bad = []
    for index in range(6):
        try:
            np.testing.assert_array_equal(fresh.read_slice('p0-0', index), whole[index])
        except UserError as error:
            assert str(path) in str(error)
            assert 'checksum' in str(error)
            bad.append(index)
    assert 1 <= len(bad) <= 2


@pytest.mark.parametrize('keep', [0, 10, 200, -30])
def test_truncated_file_is_named(make_store, tmp_path, keep):
    store = make_store(tmp_path / 's', patients=1)
    path = store.root / 'cases' / 'p0-0' / 'image.b2nd'
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match='image.b2nd.*prepare_data'):
        SliceStore(store.root).read_volume('p0-0')


def chunked(path, images, tag=''):
    def chunks():
        for image in images:
            constant = (image == image.flat[0]).all()
            yield compress_image(image), (int(image.flat[0]) if constant else None)

    write_chunks(path, images.shape, chunks(), tag)
    return ChunkReader(path)


@pytest.mark.parametrize('shape', [(9, 12, 14), (9, 12, 14, 3)])
@pytest.mark.parametrize('constant', [(), (0,), (0, 1, 8), (3, 4)])
def test_chunks_written_one_by_one(tmp_path, shape, constant):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape).astype(np.uint8)
    for number, index in enumerate(constant):
        images[index] = number * 7
    reader = chunked(tmp_path / 'a.b2nd', images, 'a tag')
    assert reader.shape == shape and reader.tag == 'a tag'
    for index in (8, 0, 3, 4, 1):
        np.testing.assert_array_equal(reader.read(index), images[index])
    # Through a second file, without being compressed again.
    write_chunks(tmp_path / 'b.b2nd', shape, (reader.read_chunk(n) for n in range(9)))
    again = ChunkReader(tmp_path / 'b.b2nd')
    np.testing.assert_array_equal(again.read_all(), images)
    assert again.tag == ''


def test_threads_read_the_same(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    images = np.random.default_rng(0).integers(0, 256, (30, 40, 40)).astype(np.uint8)
    reader = chunked(tmp_path / 'a.b2nd', images)
    with ThreadPoolExecutor(4) as pool:
        for index, found in zip(
            list(range(30)) * 20, pool.map(reader.read, list(range(30)) * 20)
        ):
            np.testing.assert_array_equal(found, images[index])


def test_a_file_cut_off_while_it_is_open(tmp_path):
    rng = np.random.default_rng(0)
    reader = chunked(
        tmp_path / 'a.b2nd', rng.integers(0, 256, (9, 40, 40)).astype(np.uint8)
    )
    reader.read(0)
    os.truncate(tmp_path / 'a.b2nd', 4000)
    with pytest.raises(UserError, match='a.b2nd.*prepare_data'):
        reader.read(8)
