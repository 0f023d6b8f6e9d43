import numpy as np

from medssl_mm.analysis.perceptual_distance import Distance
from medssl_mm.results.perceptual_distance import (
    distance_table,
    draw_distances,
    draw_pairs,
)


def results():
    return [
        Distance('a', 'alex', np.array([0.2, 0.4])),
        Distance('a', 'average', np.array([0.3, 0.5])),
        Distance('b', 'alex', np.array([0.6])),
    ]


def test_table_has_mean_and_spread():
    table = distance_table(results())
    assert list(table.columns) == ['encoder', 'pictures', 'alex', 'average']
    assert table['alex'][0] == '0.300 ± 0.141'
    # One picture has no spread.
    assert list(table.loc[1]) == ['b', '1', '0.600', '–']


def test_panel_per_measure_shows_all_pictures():
    figure = draw_distances(results())
    assert [axes.get_title() for axes in figure.axes] == ['LPIPS alex', 'LPIPS average']
    dots = figure.axes[0].lines[0].get_ydata()
    np.testing.assert_array_equal(dots, [0.2, 0.4])


def test_sheet_puts_the_same_pictures_side_by_side():
    def made(value):
        return np.full((4, 4, 3), value, np.uint8)

    figure = draw_pairs(
        {'a': [(made(1), made(2)), (made(3), made(4))], 'b': [(made(3), made(5))]},
        {'a': ['x', 'y'], 'b': ['y']},
        {'a': np.array([0.2, 0.4]), 'b': np.array([0.6])},
        'alex',
    )
    axes = np.array(figure.axes).reshape(2, 3)
    values = [
        [
            int(axis.images[0].get_array()[0, 0, 0]) if axis.images else None
            for axis in row
        ]
        for row in axes
    ]
    assert values == [[1, 2, None], [3, 4, 5]]
    assert axes[1, 2].get_xlabel() == '0.600'
    assert [row[0].get_ylabel() for row in axes] == ['x', 'y']
