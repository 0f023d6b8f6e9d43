import cv2
import numpy as np
import pytest

from medssl_mm.datasets.image_list import SliceImageList
from medssl_mm.datasets.sampler import EpochIndex
from medssl_mm.errors import UserError

LOAD = dict(type='medssl_mm.LoadGreyImage', offset=-1024)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    lines = ['# path label', '']
    for patient in ('p 1', 'p2'):
        (tmp_path / patient).mkdir()
        for number in range(3):
            path = f'{patient}/slice_{number:03d}.png'
            image = rng.integers(0, 4000, (10, 12)).astype(np.uint16)
            cv2.imwrite(str(tmp_path / path), image)
            lines.append(f'{path} {number}')
    (tmp_path / 'train.txt').write_text('\n'.join(lines))
    return tmp_path


def test_lines_become_samples(folder):
    dataset = SliceImageList(folder, 'train.txt', pipeline=[LOAD])
    assert len(dataset) == 6
    sample = dataset[4]
    assert sample['patient_id'] == 'p2' and sample['slice_index'] == 1
    assert sample['gt_label'] == 1
    stored = cv2.imread(sample['img_path'], cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(sample['img'], stored.astype(np.float32) - 1024)
    patients, places = dataset.sample_locations()
    assert patients.tolist() == [0, 0, 0, 1, 1, 1]
    assert places.tolist() == [0, 1, 2, 0, 1, 2]


def test_labels_may_be_missing(folder):
    (folder / 'list').write_text('p 1/slice_000.png\np2/slice_001.png\n')
    dataset = SliceImageList(folder, folder / 'list')
    assert dataset.get_data_info(0)['gt_label'] is None


def test_generator_follows_the_epoch(folder):
    dataset = SliceImageList(folder, 'train.txt')
    draws = [
        dataset.get_data_info(EpochIndex(2, epoch))['rng'].random()
        for epoch in (0, 1, 0)
    ]
    assert draws[0] == draws[2] != draws[1]


def test_two_views_of_a_list(folder):
    dataset = SliceImageList(
        folder,
        'train.txt',
        pipeline=[
            LOAD,
            dict(type='medssl_mm.CTWindow', level=40, width=400),
            dict(
                type='medssl_mm.CropViews',
                crop=dict(type='medssl_mm.RandomCropView', size=8),
            ),
            dict(type='medssl_mm.PackViews'),
        ],
    )
    assert [view.shape for view in dataset[0]['inputs']] == [(1, 8, 8)] * 2


@pytest.mark.parametrize(
    'content, message',
    [
        ('', 'names no image'),
        ('p2/slice_000.png 0\nslice 7x', 'line 2: expected'),
        ('p9/slice_000.png 0', 'p9/slice_000.png, does not exist'),
    ],
)
def test_bad_lists_are_explained(folder, content, message):
    (folder / 'bad.txt').write_text(content)
    with pytest.raises(UserError, match=message):
        SliceImageList(folder, 'bad.txt')


def test_missing_list_and_folder(folder):
    with pytest.raises(UserError, match='list file .* does not exist'):
        SliceImageList(folder, 'none.txt')
    with pytest.raises(UserError, match='image folder .* does not exist'):
        SliceImageList(folder / 'none', folder / 'train.txt')


def test_unreadable_images_are_named(folder):
    dataset = SliceImageList(folder, 'train.txt', pipeline=[LOAD])
    broken = folder / 'p2/slice_000.png'
    broken.write_bytes(b'no image')
    with pytest.raises(UserError, match='slice_000.png cannot be decoded'):
        dataset[3]
    cv2.imwrite(
        str(broken),
        np.random.default_rng(0).integers(0, 255, (9, 9, 3)).astype(np.uint8),
    )
    with pytest.raises(UserError, match='coloured'):
        dataset[3]
