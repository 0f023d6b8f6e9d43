import numpy as np
import pytest

from medssl_mm.datasets.transforms import RandomCropView


def test_extreme_shapes_fall_back_to_the_largest_allowed_box():
    crop = RandomCropView(size=16, scale=(0.9, 1), ratio=(0.75, 4 / 3))
    geometry = crop.sample((20, 200), np.random.default_rng(0))
    x0, y0, x1, y1 = geometry['box']
    assert (x1 - x0) / (y1 - y0) == pytest.approx(4 / 3)
    assert y1 - y0 == pytest.approx(20)
    image = np.zeros((1, 1), np.float32)
    assert crop(dict(img=image, rng=np.random.default_rng(0)))['img'].shape == (16, 16)


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
        RandomCropView(**arguments)


def test_missing_generator_is_explained():
    with pytest.raises(KeyError, match='random generator|Generator'):
        RandomCropView(size=8)(dict(img=np.zeros((9, 9), np.float32)))
