import numpy as np
import pytest

from medssl_mm.datasets.transforms.base import (
    as_float_image,
    check_number,
    check_range,
    check_size,
    get_rng,
)


def test_numbers():
    assert check_number('X', 'n', np.float32(2)) == 2.0
    with pytest.raises(TypeError, match='X: n must be a number, got True'):
        check_number('X', 'n', True)
    with pytest.raises(ValueError, match='between 0 and 1, got nan'):
        check_number('X', 'n', float('nan'), 0, 1)


def test_ranges():
    assert check_range('X', 'r', [1, 2]) == (1.0, 2.0)
    with pytest.raises(TypeError, match='r must be a pair'):
        check_range('X', 'r', (1, 2, 3))


def test_sizes():
    assert check_size('X', 's', 5) == (5, 5)
    assert check_size('X', 's', [5, 6]) == (5, 6)
    for wrong in (True, 2.0, (3, 4.0), (1, 2, 3)):
        with pytest.raises(TypeError, match='s must be an int or a pair'):
            check_size('X', 's', wrong)


def test_the_generator_is_handed_out():
    rng = np.random.default_rng(0)
    assert get_rng(dict(rng=rng), 'X') is rng
    with pytest.raises(KeyError, match='X: the sample has no'):
        get_rng({}, 'X')


def test_colour_images_only_where_allowed():
    colour = np.zeros((4, 5, 3), np.uint8)
    assert as_float_image(colour, 'X', colour=True).dtype == np.float32
    with pytest.raises(ValueError, match='X: img must be one grey slice'):
        as_float_image(colour, 'X')
    for shape in ((4, 5, 4), (3, 4, 5, 3)):
        with pytest.raises(ValueError, match='a grey .* or an RGB'):
            as_float_image(np.zeros(shape), 'X', colour=True)
