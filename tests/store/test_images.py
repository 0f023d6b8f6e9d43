import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.store import SliceStore, open_store
from medssl_mm.store.images import (
    ImageInfo,
    ImageStore,
    classes_of_label,
)
from tests.conftest import write_tiny_store
from tests.datasets.images import make_picture, write_image_set


@pytest.mark.parametrize('channels', [1, 3])
def test_images_come_back(tmp_path, channels):
    store = write_image_set(tmp_path / 'set', channels=channels)
    assert len(store) == 12 and store.channels == channels
    for patient in range(6):
        for number in range(2):
            index = store.index_of(f'p{patient}-{number}')
            image = store.read(index)
            np.testing.assert_array_equal(
                image, make_picture(100 * patient + number, 16, channels)
            )
            assert store.patient_ids[index] == f'p{patient}'
            assert store.labels[index] == patient % 2


def test_any_blosc2_reads_the_file(tmp_path):
    import blosc2

    store = write_image_set(tmp_path / 'set', channels=3)
    array = blosc2.open(str(tmp_path / 'set' / 'images.b2nd'), mode='r')
    assert array.shape == (12, 16, 16, 3) and array.chunks == (1, 16, 16, 3)
    np.testing.assert_array_equal(array[7], store.read(7))


def test_several_and_unknown_labels(tmp_path):
    store = write_image_set(
        tmp_path / 'set',
        task='multi-label',
        classes=('a', 'b', 'c'),
        patients=3,
        each=1,
        label=lambda p, n: [(1, 0, 1), (0, 0, 0), (-1, -1, -1)][p],
    )
    np.testing.assert_array_equal(store.labels, [(1, 0, 1), (0, 0, 0), (-1, -1, -1)])
    assert store.labelled.tolist() == [True, True, False]
    assert [store.classes_of(f'p{n}-0') for n in range(3)] == [(0, 2), (), ()]
    assert classes_of_label(4) == (4,) and classes_of_label(-1) == ()


def test_table_has_the_columns_of_the_classes(tmp_path):
    write_image_set(
        tmp_path / 'set',
        task='multi-label',
        classes=('Mass', 'Nodule'),
        patients=3,
        each=1,
    )
    lines = (tmp_path / 'set' / 'images.csv').read_text().splitlines()
    assert lines[0].endswith(',warnings,Mass,Nodule')
    assert lines[1].startswith('p0-0,p0,p0-0.png')
    assert lines[2].endswith(',0,1')


def test_copies_read_the_same(tmp_path):
    store = write_image_set(tmp_path / 'set')
    store.read(0)
    for other in (pickle.loads(pickle.dumps(store)), copy.deepcopy(store)):
        np.testing.assert_array_equal(other.read(3), store.read(3))
        assert other.case_ids == store.case_ids


def test_open_store_tells_the_kinds_apart(tmp_path):
    write_image_set(tmp_path / 'set')
    write_tiny_store(tmp_path / 'slices', patients=1)
    assert isinstance(open_store(tmp_path / 'set'), ImageStore)
    assert isinstance(open_store(tmp_path / 'slices'), SliceStore)
    with pytest.raises(UserError, match='use medssl_mm.ClassificationImages'):
        SliceStore(tmp_path / 'set')
    with pytest.raises(UserError, match='store of slices; use medssl_mm.Sli'):
        open_store(tmp_path / 'slices', 'classification')


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(UserError, match='does not exist; make it with'):
        ImageStore(tmp_path / 'set')
    store = write_image_set(tmp_path / 'set')
    with pytest.raises(UserError, match="no image 'p9'; it has 12: p0-0"):
        store.index_of('p9')
    with pytest.raises(IndexError, match='has 12 slices'):
        store.read(12)


def test_damage_is_noticed(tmp_path):
    write_image_set(tmp_path / 'set')
    path = tmp_path / 'set' / 'images.b2nd'
    content = bytearray(path.read_bytes())
    content[300] ^= 255
    path.write_bytes(content)
    store = ImageStore(tmp_path / 'set')
    with pytest.raises(UserError, match='images.b2nd: checksum'):
        for index in range(12):
            store.read(index)


@pytest.mark.parametrize(
    'change, message',
    [
        (('p0-0,p0', 'p0-0,p1'), 'images.csv does not belong'),
        (('p0-0,p0', 'p0-0,p0,x'), 'line 2 is damaged'),
        (('image_id', 'image'), 'has the columns'),
    ],
)
def test_a_changed_table_is_refused(tmp_path, change, message):
    write_image_set(tmp_path / 'set')
    path = tmp_path / 'set' / 'images.csv'
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(UserError, match=message):
        _ = ImageStore(tmp_path / 'set').image_ids


def test_files_of_two_imports_are_refused(tmp_path):
    write_image_set(tmp_path / 'one')
    write_image_set(tmp_path / 'two', each=3)
    (tmp_path / 'two' / 'images.b2nd').replace(tmp_path / 'one' / 'images.b2nd')
    with pytest.raises(UserError, match='images.b2nd does not belong'):
        ImageStore(tmp_path / 'one').read(0)


def test_info_knows_whether_it_is_labelled():
    assert ImageInfo('a', 'p', 0, 'f').labelled
    assert not ImageInfo('a', 'p', -1, 'f').labelled
    assert not ImageInfo('a', 'p', (-1, -1), 'f').labelled


@pytest.mark.parametrize(
    'module',
    [
        'store.images',
        'store.image_writer',
        'importers.sets.nih_cxr14',
        'importers.sets.idc',
        'importers.sets.diabetic_retinopathy',
    ],
)
def test_imports_stay_light(module):
    """The import tool must not wait for torch, nor need it."""
    code = (
        f'import sys, medssl_mm.{module}\n'
        'heavy = {"torch", "mmengine", "mmcv", "cv2", "blosc2", "pandas"}'
        ' & set(sys.modules)\n'
        'sys.exit(f"{heavy}" if heavy else 0)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
