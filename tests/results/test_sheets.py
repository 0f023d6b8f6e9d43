import io

import numpy as np
import pytest
from PIL import Image

from medssl_mm.results.files import png_of
from medssl_mm.results.sheets import (
    RIGHT,
    WRONG,
    Tile,
    draw_sheet,
    lossless,
    shortened,
)


def picture(value, side=8, channels=3):
    return np.full((side, side, channels), value, np.uint8)


def test_sheet_shows_every_picture_with_its_text_and_frame():
    rows = [
        [Tile(picture(10), 'a'), Tile(picture(200), 'b', RIGHT)],
        [Tile(picture(30, channels=1)), None],
        [Tile(picture(50), 'c', WRONG, dashed=True)],
    ]
    figure = draw_sheet(rows, ['one', 'two'], ['x', 'y', 'z'], 'all', 'note')
    axes = np.array(figure.axes).reshape(3, 2)
    assert [axis.get_title() for axis in axes[0]] == ['one', 'two']
    assert [line[0].get_ylabel() for line in axes] == ['x', 'y', 'z']
    assert axes[0, 1].get_xlabel() == 'b'
    shown = [[len(axis.images) for axis in line] for line in axes]
    assert shown == [[1, 1], [1, 0], [1, 0]]
    assert (axes[0, 1].images[0].get_array() == 200).all()
    # Grey is not stretched: black and white are 0 and 255.
    assert axes[1, 0].images[0].get_clim() == (0, 255)
    frames = [axis.spines['left'].get_visible() for axis in axes.flat]
    assert frames == [False, True, False, False, True, False]
    one, other = axes[0, 1].spines['left'], axes[2, 0].spines['left']
    assert one.get_linestyle() != other.get_linestyle()
    assert one.get_edgecolor() != other.get_edgecolor()
    assert png_of(figure).startswith(b'\x89PNG')


def test_heat_lies_over_the_grey_picture():
    heat = np.arange(64.0).reshape(8, 8)
    figure = draw_sheet([[Tile(picture(90), heat=heat)]])
    layers = figure.axes[0].images
    np.testing.assert_array_equal(layers[-1].get_array(), heat)
    assert layers[-1].get_clim() == (0, 63) and 0 < layers[-1].get_alpha() < 1
    assert layers[-2].get_array().ndim == 2


@pytest.mark.parametrize('shape', [(6, 9), (6, 9, 1), (6, 9, 3)])
def test_pictures_are_written_without_loss(shape):
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = np.array(Image.open(io.BytesIO(lossless(values))))
    np.testing.assert_array_equal(found, values.squeeze())


def test_long_names_keep_both_ends():
    assert shortened('short') == 'short'
    found = shortened('patient00001/study1/view1_frontal', 21)
    assert (
        len(found) == 21 and found.startswith('patient') and found.endswith('frontal')
    )
