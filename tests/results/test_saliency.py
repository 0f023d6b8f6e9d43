import json

import numpy as np
import pytest

from medssl_mm.analysis.saliency import Saliency
from medssl_mm.results.saliency import draw_saliency, saliency_table, write_saliency


def corner(share, side=10):
    values = np.zeros((side, side))
    values.flat[: round(share * side * side)] = 1
    return values


def results():
    return [
        Saliency('a', 'x', corner(0.2)),
        Saliency('a', 'y', corner(0.4)),
        Saliency('b', 'x', corner(0.5)),
        Saliency('b', 'y', corner(0.7)),
        Saliency('b', 'x', corner(0.1), 1),
        Saliency('b', 'y', corner(0.3), 1),
    ]


def test_table_has_the_mean_over_images_of_all_seeds():
    table = saliency_table(results())
    assert list(table['encoder']) == ['a', 'b'] and list(table['images']) == ['2', '2']
    assert table.iloc[0, 1].startswith('30.0 [')
    assert table.iloc[1, 1].startswith('40.0 [')


def sheet():
    picture = np.zeros((10, 10, 3), np.uint8)
    shown = {key: [picture, picture] for key in (('a', 0), ('b', 0), ('b', 1))}
    return draw_saliency(results(), shown, ['x', 'y'], ['ill', ''])


def test_sheet_has_a_row_per_image_and_a_column_per_encoder():
    axes = np.array(sheet().axes).reshape(2, 4)
    assert [axis.get_title() for axis in axes[0]] == ['image', 'a #0', 'b #0', 'b #1']
    assert axes[0, 0].get_xlabel() == 'ill'
    assert axes[1, 3].get_xlabel() == '30.0 %'
    np.testing.assert_array_equal(axes[0, 2].images[-1].get_array(), corner(0.5))


def test_files(tmp_path):
    paths = write_saliency(
        results(), tmp_path, 'strict', dict(window=4, dataset='eyes'), sheet()
    )
    content = json.loads(paths[0].read_text())
    assert content['mode'] == 'strict' and content['window'] == 4
    assert content['means']['a']['mean'] == pytest.approx(0.3)
    assert [r['attentive_diffusion'] for r in content['results']] == pytest.approx(
        [0.2, 0.4, 0.5, 0.7, 0.1, 0.3]
    )
