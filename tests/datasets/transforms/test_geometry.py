import copy

import numpy as np
import pytest
import torch

from medssl_mm.datasets.transforms import (
    RandomSliceAffine,
    RandomSliceCrop,
    ResizeSlice,
    ViewGeometry,
)
from medssl_mm.datasets.transforms.geometry import warp_label
from medssl_mm.functional.geometry import (
    apply_affine,
    inside_view,
    invert_affine,
)


def coordinate_images(height, width):
    """Two images whose grey value is the pixel's own x and y."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return x, y


def cut(crop, image, geometry):
    return crop.apply(np.ascontiguousarray(image), geometry)


@pytest.mark.parametrize('shape', [(90, 120), (301, 257), (512, 512)])
@pytest.mark.parametrize('size', [33, (48, 64), 224])
@pytest.mark.parametrize('rotation', [0.0, 25.0])
def test_matrix_tells_where_every_view_pixel_comes_from(shape, size, rotation):
    images = coordinate_images(*shape)
    crop = RandomSliceCrop(size=size, rotation=rotation)
    rng = np.random.default_rng(5)
    for _ in range(6):
        geometry = crop.sample(shape, rng)
        height, width = geometry['view_shape']
        v, u = np.mgrid[:height, :width]
        matrix = geometry['matrix']
        expected = [row[0] * u + row[1] * v + row[2] for row in matrix]
        # Away from the slice's border, where nothing had to be continued.
        margin = 1 + max(shape) / min(height, width)
        inner = (
            (expected[0] > margin)
            & (expected[0] < shape[1] - margin)
            & (expected[1] > margin)
            & (expected[1] < shape[0] - margin)
        )
        assert inner.sum() > 0.1 * inner.size
        for image, coordinate in zip(images, expected):
            error = np.abs(cut(crop, image, geometry) - coordinate)
            assert error[inner].max() < 0.05


def test_box_flip_and_rotation_agree_with_the_matrix():
    crop = RandomSliceCrop(size=(40, 60), rotation=40.0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        geometry = crop.sample((200, 300), rng)
        x0, y0, x1, y1 = geometry['box']
        assert 0 <= x0 < x1 <= 300 and 0 <= y0 < y1 <= 200
        # Corners of the view, walked by hand: mirror, scale, turn about
        # the centre of the box.
        angle = np.radians(geometry['rotation'])
        for u in (-0.5, 59.5):
            for v in (-0.5, 39.5):
                share_x, share_y = (u + 0.5) / 60, (v + 0.5) / 40
                if geometry['flip']:
                    share_x = 1 - share_x
                dx = (share_x - 0.5) * (x1 - x0)
                dy = (share_y - 0.5) * (y1 - y0)
                x = (x0 + x1) / 2 + np.cos(angle) * dx + np.sin(angle) * dy
                y = (y0 + y1) / 2 - np.sin(angle) * dx + np.cos(angle) * dy
                np.testing.assert_allclose(
                    geometry['matrix'] @ (u, v, 1), (x - 0.5, y - 0.5), atol=1e-9
                )


def test_two_views_show_the_same_source_at_matched_pixels():
    shape = (180, 220)
    images = coordinate_images(*shape)
    crop = RandomSliceCrop(size=64, scale=(0.4, 1.0), rotation=15.0)
    rng = np.random.default_rng(3)
    compared = 0
    for _ in range(10):
        one, two = crop.sample(shape, rng), crop.sample(shape, rng)
        v, u = torch.meshgrid(
            torch.arange(8, 56.0), torch.arange(8, 56.0), indexing='ij'
        )
        points = torch.stack([u, v], -1).reshape(-1, 2).double()
        there = apply_affine(
            invert_affine(torch.from_numpy(two['matrix'])),
            apply_affine(torch.from_numpy(one['matrix']), points),
        )
        inner = (
            inside_view(there, (64, 64)) & (there > 2).all(-1) & (there < 61).all(-1)
        )
        for image in images:
            view_one = torch.from_numpy(cut(crop, image, one))
            view_two = torch.from_numpy(cut(crop, image, two))
            grid = (2 * there + 1) / 64 - 1
            sampled = torch.nn.functional.grid_sample(
                view_two[None, None], grid[None, None].float(), align_corners=False
            )[0, 0, 0]
            here = view_one[points[:, 1].long(), points[:, 0].long()]
            # Pixels that look outside the slice know no coordinate.
            inner = inner & (here > 2) & (sampled > 2)
            inner = inner & (here < min(shape) - 4)
            inner = inner & (sampled < min(shape) - 4)
            assert (here - sampled).abs()[inner].max() < 0.1
            compared += int(inner.sum())
    assert compared > 2000


def test_label_follows_the_image():
    image = np.zeros((100, 140), np.float32)
    image[30:60, 50:90] = 1
    label = image.astype(np.uint8) * 3
    crop = RandomSliceCrop(size=50, scale=(0.5, 1), rotation=20)
    for seed in range(10):
        results = crop(
            dict(
                img=image,
                gt_seg_map=label,
                seg_fields=['gt_seg_map'],
                rng=np.random.default_rng(seed),
            )
        )
        seen = results['gt_seg_map']
        assert seen.shape == results['img'].shape == results['img_shape']
        assert set(np.unique(seen)) <= {0, 3, 255}
        inside = seen != 255
        # Nearest against bilinear: they may differ at the border only.
        assert (results['img'][inside & (seen == 3)] >= 0.24).all()
        assert (results['img'][inside & (seen == 0)] <= 0.76).all()


def test_a_turned_box_shows_the_padding_outside_the_slice():
    image = np.full((60, 60), 5.0, np.float32)
    label = np.ones((60, 60), np.uint8)
    crop = RandomSliceCrop(
        size=60, scale=(1, 1), ratio=(1, 1), rotation=45, pad_value=-2
    )
    results = crop(
        dict(
            img=image,
            gt_seg_map=label,
            seg_fields=['gt_seg_map'],
            rng=np.random.default_rng(1),
        )
    )
    assert abs(results['geometry']['rotation']) > 1
    assert results['img'].min() == -2
    assert set(np.unique(results['gt_seg_map'])) == {1, 255}
    crop.pad_value = 'minimum'
    results = crop(dict(img=image, rng=np.random.default_rng(1)))
    assert (results['img'] == 5).all()


def test_coarse_views_average_instead_of_aliasing():
    stripes = np.tile(np.array([0, 1], np.float32), (256, 128))
    crop = RandomSliceCrop(size=32, scale=(1, 1), ratio=(1, 1), flip_prob=0)
    view = crop(dict(img=stripes, rng=np.random.default_rng(0)))['img']
    np.testing.assert_allclose(view, 0.5, atol=1e-5)


def test_upright_views_continue_the_edge():
    image = np.full((30, 30), 7.0, np.float32)
    view = RandomSliceCrop(size=90, scale=(1, 1), ratio=(1, 1))(
        dict(img=image, rng=np.random.default_rng(0))
    )['img']
    np.testing.assert_allclose(view, 7.0, atol=1e-5)


def test_extreme_shapes_fall_back_to_the_largest_allowed_box():
    crop = RandomSliceCrop(size=16, scale=(0.9, 1), ratio=(0.75, 4 / 3))
    geometry = crop.sample((20, 200), np.random.default_rng(0))
    x0, y0, x1, y1 = geometry['box']
    assert (x1 - x0) / (y1 - y0) == pytest.approx(4 / 3)
    assert y1 - y0 == pytest.approx(20)
    image = np.zeros((1, 1), np.float32)
    assert crop(dict(img=image, rng=np.random.default_rng(0)))['img'].shape == (16, 16)


def test_geometry_survives_deepcopy_without_cost():
    geometry = ViewGeometry(box=(0, 0, 1, 1))
    assert copy.deepcopy([geometry])[0] is geometry


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(size=0), 'size must be at least 1 pixel'),
        (dict(size='224'), 'size must be an int or a pair'),
        (dict(size=64, scale=(0.5, 0.2)), 'scale must be ordered'),
        (dict(size=64, scale=(0, 1)), r'scale\[0\] must be larger than 0'),
        (dict(size=64, scale=(0.2, 2)), r'scale\[1\] must lie between'),
        (dict(size=64, flip_prob=2), 'flip_prob must lie between 0.0 and 1.0'),
        (dict(size=64, rotation=-3), 'rotation must lie between 0.0 and 180'),
        (dict(size=64, pad_value='air'), "a number or 'minimum'"),
    ],
)
def test_wrong_crop_settings_are_named(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        RandomSliceCrop(**arguments)


def test_missing_generator_is_explained():
    with pytest.raises(KeyError, match='random generator|Generator'):
        RandomSliceCrop(size=8)(dict(img=np.zeros((9, 9), np.float32)))


def test_resize_keeps_shape_and_notes_the_padding():
    image = np.random.default_rng(0).random((100, 200)).astype(np.float32)
    results = ResizeSlice(size=128, pad_value=-1)(dict(img=image))
    assert results['img'].shape == results['img_shape'] == (128, 128)
    assert results['img_padding_size'] == [0, 0, 0, 64]
    assert (results['img'][64:] == -1).all()
    assert results['img'][:64].mean() == pytest.approx(image.mean(), abs=0.01)
    tall = ResizeSlice(size=(64, 96))(dict(img=image.T))
    assert tall['img_padding_size'] == [0, 64, 0, 0]


def test_resize_without_aspect_stretches():
    results = ResizeSlice(size=(40, 30), keep_aspect=False)(
        dict(img=np.ones((9, 50), np.float32))
    )
    assert results['img'].shape == (40, 30)
    assert results['img_padding_size'] == [0, 0, 0, 0]


def test_resize_refuses_a_loaded_label():
    with pytest.raises(ValueError, match='put LoadSliceLabel after'):
        ResizeSlice(size=8)(
            dict(img=np.ones((9, 9), np.float32), seg_fields=['gt_seg_map'])
        )


@pytest.mark.parametrize(
    'step',
    [
        ResizeSlice(32, pad_value=0.25),
        ResizeSlice(90, keep_aspect=False),
        RandomSliceCrop(24, rotation=40, pad_value=0.25),
    ],
)
def test_colour_is_resized_and_cropped_channel_by_channel(step):
    picture = np.random.default_rng(0).random((40, 60, 3)).astype(np.float32)

    def run(image):
        return step(dict(img=image, rng=np.random.default_rng(3)))['img']

    for channel in range(3):
        np.testing.assert_allclose(
            run(picture)[..., channel], run(picture[..., channel].copy()), atol=1e-6
        )


def test_the_minimum_of_colour_fills_all_channels():
    picture = np.full((20, 40, 3), [0.2, 0.5, 0.9], np.float32)
    padded = ResizeSlice(40, pad_value='minimum')(dict(img=picture))['img']
    np.testing.assert_allclose(padded[-1, 0], 0.2)


def test_affine_without_its_random_part_shows_the_whole_slice_in_the_middle():
    plain = RandomSliceAffine(64, zoom=(1, 1), rotation=0, shift=0)
    geometry = plain.sample((100, 50), np.random.default_rng(0))
    assert geometry['box'] == (-25, 0, 75, 100)
    view = plain.apply(np.ones((100, 50), np.float32), geometry)
    label = warp_label(np.ones((100, 50), np.uint8), geometry, 255)
    np.testing.assert_array_equal(view[:, 18:46], 1)
    np.testing.assert_array_equal(view[:, [0, 14, 49, 63]], 0)
    np.testing.assert_array_equal(label[:, 16:48], 1)
    np.testing.assert_array_equal(label[:, [0, 15, 48, 63]], 255)


def test_affine_keeps_the_aspect_and_stays_within_its_ranges():
    affine = RandomSliceAffine((60, 90), zoom=(0.5, 2), rotation=30, shift=0.2)
    rng = np.random.default_rng(3)
    zooms, turns, shifts = [], [], []
    for _ in range(500):
        geometry = affine.sample((240, 180), rng)
        x0, y0, x1, y1 = geometry['box']
        step = (x1 - x0) / 90
        assert step == pytest.approx((y1 - y0) / 60)
        zooms.append(4 / step)  # the height decides: 240 / 60
        turns.append(geometry['rotation'])
        shifts += [((x0 + x1) / 2 - 90) / (x1 - x0), ((y0 + y1) / 2 - 120) / (y1 - y0)]
        assert not geometry['flip']
    for values, low, high in (
        (np.log(zooms), -np.log(2), np.log(2)),
        (turns, -30, 30),
        (shifts, -0.2, 0.2),
    ):
        width = high - low
        assert low <= min(values) < low + 0.02 * width
        assert high - 0.02 * width < max(values) <= high
        assert abs(np.mean(values)) < 0.05 * width


def test_affine_moves_image_and_label_alike():
    y, x = np.mgrid[:120, :100]
    disc = (x - 45) ** 2 + (y - 70) ** 2 < 25**2
    affine = RandomSliceAffine(128)
    for seed in range(5):
        results = affine(
            dict(
                img=disc.astype(np.float32),
                label=disc.astype(np.uint8),
                seg_fields=['label'],
                rng=np.random.default_rng(seed),
            )
        )
        known = results['label'] != 255
        wrong = (results['img'] > 0.5) != (results['label'] == 1)
        assert wrong[known].mean() < 0.01


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(size=8, zoom=(0, 1)), 'zoom'),
        (dict(size=8, shift=2), 'shift'),
        (dict(size=8, rotation=-1), 'rotation'),
    ],
)
def test_wrong_affine_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomSliceAffine(**arguments)


def test_labels_are_resized_like_the_image_on_request():
    y, x = np.mgrid[:120, :90]
    disc = (x - 40) ** 2 + (y - 70) ** 2 < 30**2
    results = ResizeSlice(64, resize_labels=True)(
        dict(
            img=disc.astype(np.float32),
            label=disc.astype(np.uint8),
            seg_fields=['label'],
        )
    )
    assert results['img_padding_size'] == [0, 16, 0, 0]
    assert (results['label'][:, 48:] == 255).all()
    wrong = (results['img'] > 0.5) != (results['label'] == 1)
    assert wrong[:, :48].mean() < 0.02


@pytest.mark.parametrize(
    'step',
    [
        ResizeSlice(64, resize_labels=True),
        RandomSliceCrop(64),
        RandomSliceAffine(64),
    ],
    ids=lambda step: type(step).__name__,
)
def test_refuses_a_label_on_another_grid(step):
    with pytest.raises(
        ValueError,
        match=r'label has shape \(60, 45\) but img \(120, 90\) in '
        r'case_7\.png; put ' + type(step).__name__,
    ):
        step(
            dict(
                img=np.zeros((120, 90), np.float32),
                img_path='case_7.png',
                rng=np.random.default_rng(0),
                label=np.zeros((60, 45), np.uint8),
                seg_fields=['label'],
            )
        )
