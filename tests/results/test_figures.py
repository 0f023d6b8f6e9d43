import math

import numpy as np

from medssl_mm.results import Run
from medssl_mm.results.figures import (
    heat_map,
    plot_classes,
    plot_places,
    styled_subplots,
)
from medssl_mm.statistics import Interval
from tests.results.made import CLASSES, write_result


def test_grid_of_classes_shows_every_mean_also_where_there_is_none(tmp_path):
    dice = np.array([[0.9, np.nan], [0.7, np.nan]])
    path = write_result(tmp_path / 'a', dice) / 'metrics.json'
    path.write_text(path.read_text().replace('NaN', 'null'))
    seeds = (path.parent, write_result(tmp_path / 'b', [[0.5, 0.2], [0.7, 0.4]]))
    figure = plot_classes([Run('linear', 'moco', seeds), Run('linear', 'x', seeds[:1])])
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == list(CLASSES)
    shown = {text.get_position(): text for text in axes.texts}
    # Mean over seeds of the mean over cases; columns are x.
    assert shown[0, 0].get_text() == '70' and shown[1, 0].get_text() == '30'
    assert shown[0, 1].get_text() == '80' and shown[1, 1].get_text() == '–'
    # White on a blank square could not be read.
    assert shown[1, 1].get_color() == 'black' and shown[1, 0].get_color() == 'white'


def test_places_show_intervals_and_single_seeds():
    _, ((axes,),) = styled_subplots()
    lines = dict(a=[Interval(0.5, 0.4, 0.7), Interval()], b=[Interval(0.2)] * 2)
    plot_places(axes, lines, ['stage1', 'stage2'], dict(a=[[0.4, 0.6], []]))
    first, second = axes.containers
    np.testing.assert_array_equal(first.lines[0].get_ydata(), [0.5, math.nan])
    (bars,) = first.lines[2]
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [0.4, 0.7])
    assert second.lines[0].get_color() != first.lines[0].get_color()
    dots = [line for line in axes.lines if line.get_marker() == '.']
    assert [list(line.get_ydata()) for line in dots] == [[0.4, 0.6]]
    assert [t.get_text() for t in axes.get_xticklabels()] == ['stage1', 'stage2']


def test_heat_map_names_rows_and_columns():
    _, ((axes,),) = styled_subplots()
    picture = heat_map(axes, np.eye(2), ['r', 's'], ['c', 'd'], (0, 2))
    assert picture.get_clim() == (0, 2)
    assert [t.get_text() for t in axes.get_yticklabels()] == ['r', 's']
