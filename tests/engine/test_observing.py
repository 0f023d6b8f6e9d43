import random

import numpy as np
import torch

from medssl_mm.datasets.sampler import EpochIndex, sample_rng
from medssl_mm.engine.checkpoints import random_state
from medssl_mm.engine.observing import even_batches, own_randomness, seed_of
from tests.engine.hooks.test_collapse_monitor_hook import same


def draws():
    return random.random(), np.random.rand(), torch.rand(2).tolist()


def test_generators_are_seeded_and_put_back():
    before = random_state()
    with own_randomness(3):
        first = draws()
    draws_after = draws()
    with own_randomness(3):
        assert draws() == first
    with own_randomness(4):
        assert all(a != b for a, b in zip(draws(), first))
    torch.set_rng_state(before['torch'])
    assert draws()[2] == draws_after[2]


def test_generators_are_put_back_after_an_error():
    before = random_state()
    try:
        with own_randomness():
            draws()
            raise ArithmeticError
    except ArithmeticError:
        pass
    after = random_state()
    assert before['python'] == after['python']
    assert same(before['numpy'][1], after['numpy'][1])
    assert same(before['torch'], after['torch'])


def test_seed_depends_on_every_number():
    seeds = {seed_of(*numbers) for numbers in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (0, 1))}
    assert len(seeds) == 4
    assert seed_of(0, 1, 2) == seed_of(0, 1, 2)


class Drawn(torch.utils.data.Dataset):
    """Samples as ours are: a number from (seed, epoch, sample) alone."""

    seed = 5

    def __len__(self):
        return 9

    def __getitem__(self, index):
        return int(index), sample_rng(index, self.seed).random()


def test_every_epoch_shows_the_same_samples_otherwise():
    def shown(epoch):
        def index(number):
            return EpochIndex(number, epoch, Drawn.seed)

        loader = even_batches(Drawn(), 4, 3, list, index)
        return [sample for batch in loader for sample in batch]

    views = [shown(epoch) for epoch in range(3)]
    assert [[index for index, _ in view] for view in views] == [[0, 3, 5, 8]] * 3
    assert len({number for view in views for _, number in view}) == 12
    assert views[0] == [Drawn()[index] for index in (0, 3, 5, 8)]
    assert list(even_batches(Drawn(), 4, 4, list)) == [views[0]]
    assert shown(2) == views[2]
