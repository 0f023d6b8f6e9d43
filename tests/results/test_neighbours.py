import numpy as np

from medssl_mm.analysis.neighbours import Neighbours
from medssl_mm.results.neighbours import draw_neighbours, neighbour_table
from medssl_mm.results.sheets import RIGHT, WRONG


def found():
    return Neighbours(
        'a',
        np.array([[2, 3], [3, 2], [0, 1]]),
        np.array([[0.9, 0.8], [0.7, 0.6], [0.5, 0.4]]),
        np.array([[True, False], [False, True], [True, True]]),
        0.5,
    )


def test_table_has_the_share_of_right_ones():
    [row] = neighbour_table([found()]).to_numpy().tolist()
    assert row == ['a', '66.7', '66.7', '50.0', '3']


def test_sheet_frames_right_and_wrong_neighbours():
    from matplotlib.colors import to_rgba

    figure = draw_neighbours(
        found(),
        [0, 1, 2],
        [1, 2],
        lambda row: np.full((4, 4, 3), row, np.uint8),
        lambda row: f'class {row}',
    )
    axes = np.array(figure.axes).reshape(2, 3)
    shown = [[int(a.images[0].get_array()[0, 0, 0]) for a in line] for line in axes]
    assert shown == [[1, 3, 2], [2, 0, 1]]
    colours = [
        [axis.spines['left'].get_edgecolor() for axis in line[1:]] for line in axes
    ]
    right, wrong = to_rgba(RIGHT), to_rgba(WRONG)
    assert colours == [[wrong, right], [right, right]]
    assert axes[0, 1].get_xlabel() == 'class 3  0.700'
