import math
import re

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from medssl_mm.analysis.few_shot import (
    FewShot,
    accuracy,
    difference,
    draw_episodes,
    episode_accuracies,
)
from medssl_mm.errors import UserError


def images(sizes, per_patient=1):
    """Class numbers, and patients with ``per_patient`` images in a row."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return labels, [f'p{row // per_patient}' for row in range(len(labels))]


@pytest.mark.parametrize('per_patient', [None, 1, 3])
def test_episodes_hold_what_was_asked_for(per_patient):
    labels, patients = images([30, 40, 50], per_patient or 1)
    drawn = draw_episodes(
        labels, None if per_patient is None else patients, 2, 6, 4, episodes=50
    )
    assert drawn.support.shape == (50, 2, 6) and drawn.query.shape == (50, 2, 4)
    assert drawn.by_patient == (per_patient is not None)
    for classes, support, query in zip(drawn.classes, drawn.support, drawn.query):
        assert len(set(classes)) == 2
        rows = np.concatenate([support, query], axis=1)
        assert len(np.unique(rows)) == rows.size
        assert (labels[rows] == classes[:, None]).all()
        if per_patient:
            sides = ({patients[row] for row in s.flat} for s in (support, query))
            assert not set.intersection(*sides)
    # Every class and image is drawn in the end.
    assert set(drawn.classes.flat) == {0, 1, 2}
    assert set(drawn.support.flat) | set(drawn.query.flat) == set(range(120))


def test_a_patient_of_two_classes_is_on_one_side():
    # One eye of each class: the other class's eye tells who it is.
    labels = np.tile([0, 1], 20)
    patients = [f'p{row // 2}' for row in range(40)]
    drawn = draw_episodes(labels, patients, 2, 3, 5, episodes=40)
    for support, query in zip(drawn.support, drawn.query):
        assert not np.intersect1d(support // 2, query // 2).size


def test_episodes_follow_from_the_seed():
    labels, _ = images([20, 20])
    one, same, other = (
        draw_episodes(labels, shots=3, queries=3, episodes=5, seed=s) for s in (4, 4, 5)
    )
    assert (one.support == same.support).all() and one.digest == same.digest
    assert one.digest != other.digest


@pytest.mark.parametrize(
    'arguments, facts',
    [
        (dict(shots=10, queries=15), ['glaucoma', '20 images', '10', '15', 'most 5']),
        (dict(shots=1, queries=20), ['glaucoma', '20 images', 'fewer queries']),
        (dict(ways=3, shots=1, queries=1), ['3 classes', 'normal', 'glaucoma']),
        (dict(ways=1), ['ways', '1']),
        (dict(shots=0), ['shots', '0']),
    ],
)
def test_too_little_is_refused(arguments, facts):
    labels, _ = images([40, 20])
    with pytest.raises(UserError) as error:
        draw_episodes(labels, classes=('normal', 'glaucoma'), **arguments)
    assert all(fact in str(error.value) for fact in facts)


def test_too_few_patients_are_refused():
    # Two patients of each class: three images never leave one over.
    labels, patients = images([20, 20], per_patient=10)
    with pytest.raises(UserError) as error:
        draw_episodes(labels, patients, shots=11, queries=5, classes=('a', 'b'))
    assert all(fact in str(error.value) for fact in ('11', '20 images of 2 patients'))


@pytest.mark.parametrize(
    'sizes, per_patient, shots, queries',
    [
        ([20, 20], 10, 11, 5),  # two patients of each class
        ([20, 40], 1, 10, 15),  # more than the class has, and
        ([40, 18], 3, 12, 6),  # than its patients leave over
        ([60, 30, 45], 5, 20, 10),
    ],
)
def test_the_largest_number_of_shots_that_patients_allow(
    sizes, per_patient, shots, queries
):
    """What is named is found when it is asked for, one more is not."""
    labels, patients = images(sizes, per_patient)
    settings = dict(queries=queries, episodes=40, classes='abc'[: len(sizes)])
    with pytest.raises(UserError, match='at most') as error:
        draw_episodes(labels, patients, shots=shots, **settings)
    most = int(re.search(r'at most (\d+) are possible with', str(error.value))[1])
    assert 0 < most < shots
    assert draw_episodes(labels, patients, shots=most, **settings).by_patient
    with pytest.raises(UserError, match=f'at most {most} are possible'):
        draw_episodes(labels, patients, shots=most + 1, **settings)


def test_patients_that_leave_no_queries():
    labels, patients = images([20, 20], per_patient=20)
    with pytest.raises(UserError, match='20 images of 1 patients; ask for fewer quer'):
        draw_episodes(labels, patients, shots=1, queries=1, classes='ab')


def test_accuracies_equal_scikit_learn():
    rng = np.random.default_rng(0)
    labels, _ = images([30, 30, 30])
    features = rng.normal(size=(90, 7)).astype(np.float32) + labels[:, None] * 0.3
    drawn = draw_episodes(labels, None, 3, 5, 6, episodes=20)
    found = episode_accuracies(features, drawn)
    for value, support, query in zip(found, drawn.support, drawn.query):
        model = NearestCentroid().fit(
            features[support.ravel()], labels[support.ravel()]
        )
        right = model.predict(features[query.ravel()]) == labels[query.ravel()]
        assert value == pytest.approx(right.mean())


def test_chance_and_certainty():
    labels, _ = images([50] * 5)
    drawn = draw_episodes(labels, None, 5, 10, 10, episodes=400)
    certain = episode_accuracies(np.eye(5, dtype=np.float32)[labels], drawn)
    assert (certain == 1).all()
    noise = np.random.default_rng(0).normal(size=(250, 3)).astype(np.float32)
    guessed = FewShot('random', 'stage4', 10, episode_accuracies(noise, drawn), 'x')
    # The same 250 images serve all episodes: a little off chance is no fault.
    assert accuracy([guessed]).estimate == pytest.approx(0.2, abs=0.03)


def test_interval_and_paired_difference():
    rng = np.random.default_rng(0)
    hard = rng.normal(0.6, 0.1, 500)
    one = FewShot('one', 'stage4', 5, hard, 'd')
    better = FewShot('better', 'stage4', 5, hard + rng.normal(0.02, 0.01, 500), 'd')
    found = accuracy([one])
    reach = 1.96 * hard.std(ddof=1) / math.sqrt(500)
    assert found.numbers == pytest.approx(
        (hard.mean(), hard.mean() - reach, hard.mean() + reach)
    )
    # As published: by the number of episodes, not by one less.
    published = accuracy([one], ddof=0)
    assert published.high - hard.mean() == pytest.approx(1.96 * hard.std() / 500**0.5)
    assert difference([better], [one], ddof=0).high < difference([better], [one]).high
    against = difference([better], [one])
    assert against.estimate == pytest.approx(0.02, abs=0.002)
    # The episodes' difficulty cancels.
    assert against.high - against.low < 0.1 * (found.high - found.low)
    # Two seeds count as their mean.
    assert accuracy([one, better]).estimate == pytest.approx(
        (hard.mean() + better.accuracies.mean()) / 2
    )
    with pytest.raises(UserError, match='different episodes'):
        difference([FewShot('z', 'stage4', 5, hard, 'other')], [one])
