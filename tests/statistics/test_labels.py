import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.statistics.labels import is_known, labels_of


def test_one_label_and_several():
    one = labels_of([2, None, 0, -1], ('a', 'b', 'c'), 'train')
    assert not one.multi_label
    assert one.known.tolist() == [0, 2]
    assert one.targets.tolist() == [[False, False, True], [True, False, False]]
    several = labels_of([[], [0, 1], np.array([1])], ('a', 'b'), 'train')
    assert several.multi_label
    assert several.targets.tolist() == [[False, False], [True, True], [False, True]]
    assert labels_of([1, 0], None, 'train').classes == ('0', '1')


def test_what_is_known():
    assert [is_known(label) for label in (None, -1, [-1, -1], 0, [], [1])] == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]


def test_labels_that_do_not_fit():
    with pytest.raises(UserError, match='the val subset has no labels'):
        labels_of([None, -1], ('a',), 'val')
    with pytest.raises(UserError, match='has the label 2, but only 2 classes: a, b'):
        labels_of([2], ('a', 'b'), 'val')
