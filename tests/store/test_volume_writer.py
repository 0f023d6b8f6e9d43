"""Writing: nothing half-made, nothing mixed up."""

import shutil

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.store import SliceStore, StoreWriter
from tests.conftest import writer_at


def test_writer_refuses_what_readers_could_not_use(tmp_path):
    writer = writer_at(tmp_path / 's')
    image = np.random.default_rng(0).integers(0, 9, (2, 16, 16)).astype(np.uint8)
    with pytest.raises(ValueError, match='type must be one of'):
        writer.add_case('a', image.astype(np.int64))
    with pytest.raises(ValueError, match=r'must be \(Z, H, W\)'):
        writer.add_case('a', image[0])
    with pytest.raises(ValueError, match='label must be uint8'):
        writer.add_case('a', image, image[:1])
    with pytest.raises(ValueError, match=r'values \[7\] have no class'):
        writer.add_case('a', image, np.full_like(image, 7))
    with pytest.raises(ValueError, match='plain folder name'):
        writer.add_case('../a', image)
    assert writer.staged == []


def test_a_store_keeps_its_kind(tmp_path):
    image = np.eye(16, dtype=np.uint8)[None]
    writer = writer_at(tmp_path / 's')
    writer.add_case('a', image)
    writer.finish()
    with pytest.raises(UserError, match='classes=.*--overwrite'):
        writer_at(tmp_path / 's', classes=('background', 'spleen'))
    anew = StoreWriter.create(
        tmp_path / 's',
        'made',
        'other',
        'arbitrary',
        ('background', 'spleen'),
        overwrite=True,
    )
    assert SliceStore(tmp_path / 's').case_ids == ('a',)  # still usable
    anew.add_case('b', image)
    assert anew.finish().case_ids == ('b',)
    shutil.rmtree(tmp_path / 's')
    (tmp_path / 's').mkdir()
    (tmp_path / 's' / 'thesis.tex').write_text('')
    with pytest.raises(UserError, match='thesis.tex'):
        writer_at(tmp_path / 's')


def test_discard_leaves_nothing_behind(tmp_path, make_store):
    writer = writer_at(tmp_path / 'new')
    writer.add_case('a', np.eye(16, dtype=np.uint8)[None])
    writer.discard()
    assert not (tmp_path / 'new').exists()


def test_a_published_case_is_replaced_as_a_whole(tmp_path):
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 99, (2, 3, 16, 16)).astype(np.uint8)
    writer = writer_at(tmp_path / 's')
    writer.add_case('a', first, (first > 50).astype(np.uint8))
    old = writer.finish()
    writer = writer_at(tmp_path / 's')
    writer.add_case('a', second)
    np.testing.assert_array_equal(old.read_volume('a'), first)
    new = writer.finish()
    np.testing.assert_array_equal(new.read_volume('a'), second)
    assert not new.case('a').labelled
    assert sorted(p.name for p in (tmp_path / 's').rglob('*')) == [
        'a',
        'case.json',
        'cases',
        'dataset.json',
        'generation.txt',
        'image.b2nd',
        'splits',
    ]


def test_channels_come_back(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 900, (4, 2, 16, 20)).astype(np.int16)
    image[:, 1] //= 100
    image[3] = 0
    label = rng.integers(0, 2, (4, 16, 20)).astype(np.uint8)
    writer = writer_at(tmp_path / 's', channels=('T1', 'T2'))
    info = writer.add_case('a', image, label)
    store = writer.finish()
    assert store.channels == ('T1', 'T2')
    assert info.shape == (4, 16, 20) and info == store.case('a')
    np.testing.assert_array_equal(store.read_volume('a'), image)
    for index in range(4):
        np.testing.assert_array_equal(store.read_slice('a', index), image[index])
        np.testing.assert_array_equal(store.read_label_slice('a', index), label[index])
    for number in range(2):
        plane = image[:, number]
        assert info.intensity['mean'][number] == pytest.approx(plane.mean())
        assert info.intensity['std'][number] == pytest.approx(plane.std())
        assert info.intensity['min'][number] == plane.min()
        assert info.intensity['max'][number] == plane.max()
    limits = [0.05 * high for high in info.intensity['p99_5']]
    air = (image[:, 0] <= limits[0]) & (image[:, 1] <= limits[1])
    np.testing.assert_allclose(info.slice_foreground, 1 - air.mean((1, 2)), atol=1e-5)


def test_one_channel_is_stored_as_ever(tmp_path):
    image = np.eye(16, dtype=np.uint8)[None]
    for name, settings in (('none', {}), ('one', dict(channels=('T1',)))):
        writer = writer_at(tmp_path / name, **settings)
        writer.add_case('a', image)
        writer.finish()
    for path in ('dataset.json', 'cases/a/case.json', 'cases/a/image.b2nd'):
        one, none = ((tmp_path / n / path).read_bytes() for n in ('one', 'none'))
        assert one == none
    assert b'"version": 1' in (tmp_path / 'one' / 'dataset.json').read_bytes()


def test_channels_that_do_not_fit(tmp_path):
    writer = writer_at(tmp_path / 's', channels=('T1', 'T2'))
    image = np.zeros((3, 16, 20), np.uint8)
    with pytest.raises(ValueError, match=r"case 'a'.*\(Z, C, H, W\).*\(3, 16, 20\)"):
        writer.add_case('a', image)
    with pytest.raises(ValueError, match="2 channels.*'T1', 'T2'.* got 3"):
        writer.add_case('a', np.zeros((2, 3, 16, 20), np.uint8))
    with pytest.raises(ValueError, match=r'\(3, 16, 20\), got uint8 of \(3, 2, 16'):
        image = np.zeros((3, 2, 16, 20), np.uint8)
        writer.add_case('a', image, image)
    with pytest.raises(ValueError, match='names that differ'):
        writer_at(tmp_path / 'twice', channels=('T1', 'T1'))
    with pytest.raises(UserError, match="channels=.*'T1', 'T2'.*now.*None"):
        writer_at(tmp_path / 's')
