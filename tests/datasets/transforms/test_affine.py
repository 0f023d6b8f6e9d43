import numpy as np
import pytest

from medssl_mm.datasets.transforms import RandomAffineView
from medssl_mm.datasets.transforms.warp import warp_label


def test_affine_without_its_random_part_shows_the_whole_slice_in_the_middle():
    plain = RandomAffineView(64, zoom=(1, 1), rotation=0, shift=0)
    geometry = plain.sample((100, 50), np.random.default_rng(0))
    assert geometry['box'] == (-25, 0, 75, 100)
    view = plain.apply(np.ones((100, 50), np.float32), geometry)
    label = warp_label(np.ones((100, 50), np.uint8), geometry, 255)
    np.testing.assert_array_equal(view[:, 18:46], 1)
    np.testing.assert_array_equal(view[:, [0, 14, 49, 63]], 0)
    np.testing.assert_array_equal(label[:, 16:48], 1)
    np.testing.assert_array_equal(label[:, [0, 15, 48, 63]], 255)


def test_affine_keeps_the_aspect_and_stays_within_its_ranges():
    affine = RandomAffineView((60, 90), zoom=(0.5, 2), rotation=30, shift=0.2)
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
    affine = RandomAffineView(128)
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
        RandomAffineView(**arguments)
