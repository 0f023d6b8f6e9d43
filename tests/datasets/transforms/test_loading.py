import cv2
import numpy as np
import pytest

from medssl_mm.datasets.transforms import (
    LoadGreyImage,
    LoadSlice,
    LoadSliceLabel,
)
from medssl_mm.errors import UserError
from medssl_mm.store import StoreWriter
from tests.importers.tiff_files import write_tiff


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(-1000, 1000, (3, 6, 7)).astype(np.int16)
    label = rng.integers(0, 3, image.shape).astype(np.uint8)
    writer = StoreWriter.create(tmp_path / 's', 's', 'CT', 'HU', 'abc')
    writer.add_case('one', image, label)
    writer.finish()
    return str(tmp_path / 's'), image, label


def test_slice_and_label(store):
    root, image, label = store
    results = dict(store_root=root, case_id='one', slice_index=2)
    results = LoadSliceLabel()(LoadSlice()(results))
    np.testing.assert_array_equal(results['img'], image[2])
    np.testing.assert_array_equal(results['gt_seg_map'], label[2])
    assert results['ori_shape'] == results['img_shape'] == (6, 7)
    assert results['seg_fields'] == ['gt_seg_map']


def test_label_map_selects_classes(store):
    root, _, label = store
    results = LoadSliceLabel()(
        dict(
            store_root=root, case_id='one', slice_index=0, label_map={0: 0, 1: 0, 2: 1}
        )
    )
    np.testing.assert_array_equal(results['gt_seg_map'], label[0] == 2)


def test_list_of_label_fields_is_not_shared(store):
    root, _, _ = store
    fields = []
    LoadSliceLabel()(
        dict(store_root=root, case_id='one', slice_index=0, seg_fields=fields)
    )
    assert fields == []


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_grey_image(tmp_path, dtype):
    stored = np.arange(42, dtype=dtype).reshape(6, 7) * 5
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, stored)
    seen = LoadGreyImage(scale=2, offset=-1000)(dict(img_path=path))
    np.testing.assert_array_equal(seen['img'], stored * 2.0 - 1000)
    cv2.imwrite(path, np.repeat(stored[..., None], 3, axis=2))
    seen = LoadGreyImage()(dict(img_path=path))
    np.testing.assert_array_equal(seen['img'], stored)


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_black_is_zero_in_tiff_of_any_depth(tmp_path, dtype, order, big):
    shown = np.arange(42, dtype=dtype).reshape(1, 6, 7)
    path = write_tiff(tmp_path / 'a.tif', ~shown, 0, order=order, big=big)
    seen = LoadGreyImage()(dict(img_path=str(path)))
    np.testing.assert_array_equal(seen['img'], shown[0])
    path = write_tiff(tmp_path / 'b.tif', shown.astype(np.float32), 0)
    with pytest.raises(UserError, match='b.tif has pixels of type float32'):
        LoadGreyImage()(dict(img_path=str(path)))


def test_missing_file_and_bad_settings(tmp_path):
    with pytest.raises(UserError, match='b.png does not exist'):
        LoadGreyImage()(dict(img_path=str(tmp_path / 'b.png')))
    with pytest.raises(ValueError, match='scale must not be 0'):
        LoadGreyImage(scale=0)


def test_channels_come_last_with_their_names(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 1000, (3, 2, 6, 7)).astype(np.int16)
    writer = StoreWriter.create(
        tmp_path / 's', 's', 'MR', 'arbitrary', 'abc', channels=('T1', 'T2')
    )
    writer.add_case('one', image)
    writer.finish()
    results = LoadSlice()(dict(store_root=tmp_path / 's', case_id='one', slice_index=1))
    assert results['channels'] == ('T1', 'T2') and results['img'].dtype == np.int16
    assert results['ori_shape'] == results['img_shape'] == (6, 7)
    for number in range(2):
        np.testing.assert_array_equal(results['img'][..., number], image[1, number])
