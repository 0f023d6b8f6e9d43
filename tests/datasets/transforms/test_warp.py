import copy

import numpy as np
import pytest
import torch

from medssl_mm.datasets.transforms import (
    RandomAffineView,
    RandomCropView,
    ResizeAndPad,
    ViewGeometry,
)
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
    crop = RandomCropView(size=size, rotation=rotation)
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
    crop = RandomCropView(size=(40, 60), rotation=40.0)
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
    crop = RandomCropView(size=64, scale=(0.4, 1.0), rotation=15.0)
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
    crop = RandomCropView(size=50, scale=(0.5, 1), rotation=20)
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
    crop = RandomCropView(
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
    crop = RandomCropView(size=32, scale=(1, 1), ratio=(1, 1), flip_prob=0)
    view = crop(dict(img=stripes, rng=np.random.default_rng(0)))['img']
    np.testing.assert_allclose(view, 0.5, atol=1e-5)


def test_upright_views_continue_the_edge():
    image = np.full((30, 30), 7.0, np.float32)
    view = RandomCropView(size=90, scale=(1, 1), ratio=(1, 1))(
        dict(img=image, rng=np.random.default_rng(0))
    )['img']
    np.testing.assert_allclose(view, 7.0, atol=1e-5)


def test_geometry_survives_deepcopy_without_cost():
    geometry = ViewGeometry(box=(0, 0, 1, 1))
    assert copy.deepcopy([geometry])[0] is geometry


@pytest.mark.parametrize(
    'step',
    [
        ResizeAndPad(64, resize_labels=True),
        RandomCropView(64),
        RandomAffineView(64),
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
