import pytest
from mmengine.logging import MessageHub

from medssl_mm.engine.hooks import DataWaitHook, data_wait_hook

# Lines of the log.
pytestmark = pytest.mark.exact


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


class Run:
    def __init__(self, name):
        self.message_hub = MessageHub(name)

    @property
    def share(self):
        return self.message_hub.get_scalar('train/data_wait').current()


def _iterate(hook, run, clock, wait, work):
    clock.now += wait
    hook.before_train_iter(run, 0)
    clock.now += work
    hook.after_train_iter(run, 0)


def test_share_is_that_of_the_window(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(data_wait_hook, 'time', clock)
    hook, run = DataWaitHook(window_size=2), Run('share')
    hook.before_train_epoch(run)
    _iterate(hook, run, clock, wait=1, work=3)
    assert run.share == pytest.approx(1 / 4)
    for _ in range(4):
        _iterate(hook, run, clock, wait=1, work=1)
    assert run.share == pytest.approx(1 / 2)


def test_validation_is_not_waiting(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(data_wait_hook, 'time', clock)
    hook, run = DataWaitHook(), Run('validation')
    hook.before_train_epoch(run)
    _iterate(hook, run, clock, wait=0, work=1)
    clock.now += 100
    hook.after_val(run)
    _iterate(hook, run, clock, wait=0, work=1)
    assert run.share == 0


def test_window_must_be_positive():
    with pytest.raises(ValueError, match='window_size must be at least 1'):
        DataWaitHook(window_size=0)
