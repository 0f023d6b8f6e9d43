"""How much of the time goes into waiting for data."""

import time
from collections import deque
from collections.abc import Iterable, Mapping

from mmengine.hooks import Hook
from mmengine.runner import Runner

from medssl_mm.registry import HOOKS


@HOOKS.register_module()
class DataWaitHook(Hook):
    """Logs the share of training time spent waiting for the next batch.

    The log value ``data_wait`` is a fraction between 0 and 1 over the last
    iterations. Near 0 the processor of the model is the limit; above about
    0.1 more workers, or a faster disk, would speed the training up. Time for
    logs, checkpoints and validation counts as neither.

    Args:
        window_size (int): Iterations to average over. Defaults to 20.
    """

    # After all other hooks, so that their time is not taken for waiting.
    priority = 'LOWEST'

    def __init__(self, window_size: int = 20) -> None:
        if window_size < 1:
            raise ValueError(f'window_size must be at least 1, got {window_size}')
        self.waits: deque[float] = deque(maxlen=window_size)
        self.steps: deque[float] = deque(maxlen=window_size)
        self.ready = self.started = time.perf_counter()

    def before_train_epoch(self, runner: Runner) -> None:
        """Start the clock: the first batch of an epoch is waited for too."""
        self.ready = time.perf_counter()

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None
    ) -> None:
        """Note how long the batch was waited for."""
        self.started = time.perf_counter()
        self.waits.append(self.started - self.ready)
        if self.steps:
            share = _share(self.waits, self.steps)
            runner.message_hub.update_scalar('train/data_wait', share)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: Mapping | None = None,
    ) -> None:
        """Note how long the iteration took, other hooks included."""
        now = time.perf_counter()
        self.steps.append(now - self.started)
        if len(self.steps) == 1:
            share = _share(self.waits, self.steps)
            runner.message_hub.update_scalar('train/data_wait', share)
        self.ready = now

    def after_val(self, runner: Runner) -> None:
        """Leave the time of validation out."""
        self.ready = time.perf_counter()


def _share(waits: Iterable[float], steps: Iterable[float]) -> float:
    waited, worked = sum(waits), sum(steps)
    return waited / (waited + worked)
