import pytest
import torch.distributed as dist

from medssl_mm.functional.rank_progress import RankProgress


@pytest.fixture
def ranks():
    """Three ranks of one process, which share a store."""
    store = dist.HashStore()
    made = [RankProgress(store, rank, 3, interval=0.1) for rank in range(3)]
    for rank in made:
        rank.note('iteration 1')
    yield made
    for rank in made:
        rank.end()


def test_rank_that_is_behind_is_named(ranks):
    for rank in (0, 2):
        ranks[rank].note('iteration 2')
    message = ranks[0].missing()
    assert (
        message == 'rank 1 lives, last seen at iteration 1; the others at iteration 2'
    )


def test_frozen_rank_is_named(ranks):
    ranks[2].end()
    assert ranks[0].missing() == (
        'rank 2 gives no sign of life, last seen at iteration 1; '
        'the others at iteration 1'
    )


def test_nobody_is_accused_without_reason(ranks):
    assert 'all ranks live' in ranks[1].missing()
