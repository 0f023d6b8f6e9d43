import logging
import pickle
from itertools import islice

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.logging import MMLogger

from medssl_mm.datasets.sampler import (
    EpochIndex,
    ResumableSampler,
    sample_rng,
    separate_neighbours,
)
from tests.distributed import run_processes


class Slices:
    """Patients with equally many slices each, nothing more."""

    def __init__(self, patients=5, slices=12):
        self.patients = np.repeat(np.arange(patients), slices)
        self.slices = np.tile(np.arange(slices), patients)

    def __len__(self):
        return len(self.patients)

    def sample_locations(self):
        return self.patients, self.slices


def test_epoch_index_is_an_int_that_remembers():
    index = EpochIndex(7, epoch=3, seed=11)
    again = pickle.loads(pickle.dumps(index))
    assert again == 7 and [10, 20, 30, 40, 50, 60, 70, 80][again] == 80
    assert (again.epoch, again.seed, again.origin) == (3, 11, 7)
    assert f'{index}' == '7'


def test_wrapped_indices_keep_epoch_and_origin():
    index = EpochIndex(17, epoch=2, seed=5)
    for moved in (index % 10, index - 10, index + 3):
        assert (moved.epoch, moved.seed, moved.origin) == (2, 5, 17)
    assert index % 10 == 7


def test_generator_is_a_function_of_seed_epoch_and_sample():
    draw = lambda *args: sample_rng(EpochIndex(*args)).random()  # noqa: E731
    assert draw(3, 1, 2) == draw(3, 1, 2)
    assert len({draw(3, 1, 2), draw(4, 1, 2), draw(3, 2, 2), draw(3, 1, 1)}) == 4
    assert sample_rng(3, seed=9).random() == draw(3, 0, 9)


@pytest.mark.parametrize('wrapper', ['repeat', 'concat'])
def test_mmengine_wrappers_hand_the_epoch_on(wrapper):
    from mmengine.dataset import BaseDataset

    class Numbers(BaseDataset):
        def full_init(self):
            self._fully_initialized = True

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return int(index), index.epoch, sample_rng(index).random()

    numbers = Numbers(lazy_init=True)
    wrapped = (
        RepeatDataset(numbers, 2)
        if wrapper == 'repeat'
        else ConcatDataset([numbers, Numbers(lazy_init=True)])
    )
    one, two = wrapped[EpochIndex(1, 6, 0)], wrapped[EpochIndex(5, 6, 0)]
    assert one[:2] == two[:2] == (1, 6)
    assert one[2] != two[2]


def test_epochs_are_permutations_and_differ():
    sampler = ResumableSampler(Slices(), seed=0)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(first) == sorted(second) == list(range(60))
    assert first != second
    assert {index.epoch for index in second} == {1}
    assert {index.seed for index in second} == {0}
    assert list(ResumableSampler(Slices(), seed=1)) != first


def test_without_shuffle_the_order_is_kept():
    assert list(ResumableSampler(Slices(), seed=0, shuffle=False)) == list(range(60))


@pytest.mark.parametrize('infinite', [False, True])
@pytest.mark.parametrize('distance', [0, 3])
@pytest.mark.parametrize('skipped', [0, 1, 17, 40, 59])
def test_skip_is_exact(infinite, distance, skipped):
    arguments = dict(
        seed=4, infinite=infinite, neighbour_distance=distance, batch_size=8
    )
    length = 200 if infinite else 60
    straight = list(islice(ResumableSampler(Slices(), **arguments), length))
    resumed = ResumableSampler(Slices(), **arguments)
    resumed.skip(skipped)
    rest = list(islice(resumed, length - skipped))
    assert rest == straight[skipped:]
    assert [i.epoch for i in rest] == [i.epoch for i in straight[skipped:]]
    # The next iteration starts from the beginning again.
    assert list(islice(resumed, length)) == straight


def test_infinite_stream_joins_the_epochs():
    finite = ResumableSampler(Slices(), seed=3)
    wanted = []
    for epoch in range(3):
        finite.set_epoch(epoch)
        wanted += list(finite)
    endless = ResumableSampler(Slices(), seed=3, infinite=True)
    endless.set_epoch(9)
    stream = list(islice(endless, 180))
    assert stream == wanted
    assert [i.epoch for i in stream] == [0] * 60 + [1] * 60 + [2] * 60


def test_skip_beyond_a_finite_epoch_is_refused():
    with pytest.raises(ValueError, match='infinite=True'):
        ResumableSampler(Slices(), seed=0).skip(61)
    with pytest.raises(ValueError, match='at least 0'):
        ResumableSampler(Slices(), seed=0).skip(-1)


def _order_of_rank(length, arguments):
    sampler = ResumableSampler(Slices(5, 13), **arguments)
    return (list(islice(sampler, length)), len(sampler))


@pytest.mark.parametrize(
    'arguments',
    [
        dict(seed=2),
        dict(seed=2, round_up=False),
        dict(seed=2, infinite=True),
        dict(seed=2, infinite=True, neighbour_distance=2, batch_size=4),
    ],
)
def test_two_processes_share_the_order_of_one(arguments):
    single = dict(arguments)
    if 'batch_size' in single:
        single['batch_size'] *= 2
    infinite = arguments.get('infinite', False)
    whole = list(islice(ResumableSampler(Slices(5, 13), **single), 150))
    parts = run_processes(_order_of_rank, 2, 75, arguments)
    for rank, (part, length) in enumerate(parts):
        wanted = whole[rank::2]
        if not infinite and arguments.get('round_up', True):
            wanted = (whole + whole)[rank:66:2]
        assert part == wanted
        if not infinite:
            assert len(part) == length


def worst_distance(order, dataset, batch):
    worst = 10**6
    for start in range(0, len(order), batch):
        chunk = order[start : start + batch]
        for place, one in enumerate(chunk):
            for two in chunk[:place]:
                if dataset.patients[one] == dataset.patients[two]:
                    worst = min(worst, abs(dataset.slices[one] - dataset.slices[two]))
    return worst


@pytest.mark.parametrize(
    'patients, slices, batch, distance',
    [(5, 12, 8, 3), (2, 40, 16, 2), (30, 9, 32, 4), (1, 20, 2, 4), (3, 25, 12, 2)],
)
def test_neighbours_never_share_a_batch(patients, slices, batch, distance):
    dataset = Slices(patients, slices)
    sampler = ResumableSampler(
        dataset, seed=0, neighbour_distance=distance, batch_size=batch
    )
    for epoch in range(4):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert sorted(order) == list(range(len(dataset)))
        assert worst_distance(order, dataset, batch) >= distance


def test_separation_keeps_a_good_order():
    order = np.arange(0, 60).reshape(5, 12).T.ravel()
    data = Slices()
    kept, reason = separate_neighbours(order, data.patients, data.slices, 5, 2)
    np.testing.assert_array_equal(kept, order)
    assert reason == ''


def test_impossible_separation_says_why():
    data = Slices(patients=1, slices=10)
    order, reason = separate_neighbours(
        np.arange(10), data.patients, data.slices, 10, 3
    )
    assert sorted(order) == list(range(10))
    assert 'only 1 batches' in reason
    sampler = ResumableSampler(data, seed=0, neighbour_distance=3, batch_size=10)
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        for epoch in range(2):
            sampler.set_epoch(epoch)
            assert sorted(sampler) == list(range(10))
    finally:
        logger.removeHandler(handler)
    assert len(messages) == 1
    assert 'only 1 batches' in messages[0] and 'slice_step' in messages[0]


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(seed=-1), 'seed must be an int of at least 0'),
        (dict(seed=0, neighbour_distance=-2), 'neighbour_distance must be'),
        (dict(seed=0, neighbour_distance=2), 'set batch_size'),
        (
            dict(seed=0, neighbour_distance=2, batch_size=4, shuffle=False),
            'needs shuffle=True',
        ),
        (
            dict(seed=0, neighbour_distance=2, batch_size=64, infinite=True),
            'do not fill one global batch',
        ),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResumableSampler(Slices(), **arguments)


def test_data_sets_without_locations_are_refused():
    with pytest.raises(TypeError, match='sample_locations'):
        ResumableSampler(range(9), seed=0, neighbour_distance=2, batch_size=3)
    with pytest.raises(ValueError, match='empty'):
        ResumableSampler([], seed=0)
