import numpy as np
import pytest

from medssl_mm.analysis.neighbours import choose_queries, nearest_images
from medssl_mm.errors import UserError


def setting(count=40, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 5)).astype(np.float32)
    targets = np.eye(3, dtype=bool)[rng.integers(0, 3, count)]
    patients = [f'p{row // 3}' for row in range(count)]
    return features, targets, patients


def test_neighbours_equal_a_slow_search_without_the_own_patient():
    features, targets, patients = setting()
    queries, bank = np.array([0, 7, 39, 11]), np.arange(1, 38)
    found = nearest_images('a', features, targets, patients, queries, bank, 4)
    shares = []
    for place, query in enumerate(queries):
        allowed = [r for r in bank if patients[r] != patients[query]]
        cosines = {
            r: features[r]
            @ features[query]
            / np.linalg.norm(features[r])
            / np.linalg.norm(features[query])
            for r in allowed
        }
        expected = sorted(allowed, key=lambda r: -cosines[r])[:4]
        assert found.rows[place].tolist() == expected
        np.testing.assert_allclose(
            found.similarities[place], [cosines[r] for r in expected], rtol=1e-5
        )
        same = [(targets[r] & targets[query]).any() for r in expected]
        assert found.right[place].tolist() == same
        shares.append(np.mean([(targets[r] & targets[query]).any() for r in allowed]))
    assert found.chance == pytest.approx(np.mean(shares))


def test_images_of_several_labels_are_right_when_they_share_one():
    features = np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3]], np.float32)
    targets = np.array([[1, 1], [0, 1], [0, 0], [0, 0]], bool)
    names = list('abcd')
    found = nearest_images(
        'a', features, targets, names, np.array([0, 2]), np.arange(4), 3
    )
    assert found.rows[0].tolist() == [1, 2, 3]
    assert found.right[0].tolist() == [True, False, False]
    # Two images without any finding are alike.
    assert found.right[1][list(found.rows[1]).index(3)]


def test_too_few_images_of_others_are_refused():
    features, targets, _ = setting(6)
    patients = ['a', 'a', 'a', 'b', 'b', 'c']
    with pytest.raises(UserError, match='has 3 images of other patients, 4'):
        nearest_images('x', features, targets, patients, np.array([0]), np.arange(6), 4)


def test_queries_are_of_every_class_and_of_different_patients():
    _, targets, patients = setting(60)
    chosen = choose_queries(targets, patients, 2)
    assert [int(targets[row].argmax()) for row in chosen] == [0, 0, 1, 1, 2, 2]
    for first in range(0, 6, 2):
        assert patients[chosen[first]] != patients[chosen[first + 1]]
    assert choose_queries(targets, patients, 2) == chosen
    assert choose_queries(targets, patients, 2, seed=1) != chosen
    targets[:5] = False  # without a finding
    assert len(choose_queries(targets, patients, 2)) == 8
