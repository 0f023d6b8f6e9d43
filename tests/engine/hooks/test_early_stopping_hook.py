from types import SimpleNamespace

import pytest

from medssl_mm.engine import ResumableEarlyStoppingHook

# Settings and lines of the log.
pytestmark = pytest.mark.exact


def made():
    hook = ResumableEarlyStoppingHook(
        monitor='score', rule='greater', min_delta=0.0, patience=3
    )
    runner = SimpleNamespace(
        train_loop=SimpleNamespace(stop_training=False),
        logger=SimpleNamespace(info=print),
        _resume=True,
    )
    return hook, runner


def stops_at(scores, interrupted_after=None):
    hook, runner = made()
    for number, score in enumerate(scores, 1):
        hook.after_val_epoch(runner, dict(score=score))
        if runner.train_loop.stop_training:
            return number
        if number == interrupted_after:
            checkpoint = {}
            hook.before_save_checkpoint(runner, checkpoint)
            hook, runner = made()
            hook.after_load_checkpoint(runner, checkpoint)
    return None


def test_equal_is_not_worse_and_three_worse_ones_end_the_run():
    assert stops_at([0.5, 0.6, 0.6, 0.5, 0.6, 0.5, 0.4, 0.5]) == 8
    assert stops_at([0.5, 0.6, 0.5, 0.5]) is None


def test_a_resumed_run_ends_where_an_undisturbed_one_would():
    scores = [0.5, 0.7, 0.6, 0.6, 0.65]
    assert stops_at(scores) == 5
    for interruption in range(1, 5):
        assert stops_at(scores, interruption) == 5


def test_weights_that_are_only_loaded_bring_no_count():
    hook, runner = made()
    runner._resume = False
    hook.after_load_checkpoint(
        runner, dict(early_stopping=dict(best_score=0.9, wait_count=2))
    )
    hook.after_val_epoch(runner, dict(score=0.1))
    assert hook.best_score == 0.1
