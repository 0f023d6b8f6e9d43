import random

import numpy as np
import torch

from medssl_mm.engine.checkpoints import random_state
from medssl_mm.engine.observing import own_randomness, seed_of
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
