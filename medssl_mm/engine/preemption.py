"""Trainings that are told to end, and leave so that they can go on exactly.

Slurm sends SIGUSR1 or SIGTERM before it takes the machine away; a person presses
Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor

from medssl_mm import files
from medssl_mm.engine.checkpoints import INTERRUPTED
from medssl_mm.engine.loops import EpochTrainLoop
from medssl_mm.errors import COMMAND, END_SIGNALS, EXIT_PREEMPTED
from medssl_mm.functional import distributed

__all__ = ['Preempted', 'PreemptionHook', 'command_to_go_on', 'ignore_signals', 'train']

# What a terminal sends to all processes, a launcher sends on, and Slurm's warning is
# followed by a SIGTERM of who runs the job: not a second signal.
_SAME = 1.0  # seconds
_SIGNALS = (signal.SIGINT, *END_SIGNALS)
# Ranks ask each other once a second, but at least after so many iterations.
_MOST_ITERATIONS = 10


class Preempted(BaseException):
    """The run was told to end and has written its checkpoint."""


class _Request:
    """Notes the first signal; the same again ends the process as it always did."""

    def __init__(self) -> None:
        self.name = ''
        self._first: dict[int, float] = {}
        self.former: dict[int, object] = {}

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._first.setdefault(number, now) > _SAME:
            signal.signal(number, self.former[number])  # type: ignore[arg-type]
            os.kill(os.getpid(), number)
        elif not self.name:
            self.name = signal.Signals(number).name
            if distributed.is_main_process():
                # Not by print: this may be inside another print.
                line = f'{self.name}: ending soon, a second one ends at once\n'
                os.write(2, line.encode())


@contextlib.contextmanager
def _noted() -> Iterator[_Request]:
    request = _Request()
    if threading.current_thread() is not threading.main_thread():
        yield request  # signals go to the main thread
        return
    for number in _SIGNALS:
        request.former[number] = signal.getsignal(number)
        signal.signal(number, request)
    try:
        yield request
    finally:
        for noted, handler in request.former.items():
            signal.signal(noted, handler)  # type: ignore[arg-type]


def train(runner: Runner, interval: float = 1.0) -> int:
    """Train; SIGINT, SIGTERM and SIGUSR1 end the run after its iteration.

    A checkpoint is written from which ``--resume`` goes on bit for bit, and the
    command for that is printed. A signal during validation lets it end first. The
    same signal again, a second later or more, ends the process at once.

    Args:
        runner (Runner): Ready to train.
        interval (float): Seconds after which ranks ask each other whether one of
            them was told to end. Defaults to 1.0.

    Returns:
        int: Exit code: 0, or ``EXIT_PREEMPTED`` when the run was told to end.
    """
    with _noted() as request:
        runner.register_hook(PreemptionHook(request, interval))
        try:
            runner.train()
        except Preempted as end:
            if distributed.is_main_process():
                print(end, file=sys.stderr, flush=True)
            return EXIT_PREEMPTED
    return 0


def ignore_signals() -> None:
    """Let nothing change the exit code of a process that ends now.

    srun and torchrun send SIGTERM to the others when the first process has ended.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class PreemptionHook(Hook):
    """Ends a training on request, on all ranks after the same iteration.

    Args:
        request: Its ``name`` is that of the signal, or ''.
        interval (float): See :func:`train`.
    """

    priority = 'LOWEST'  # all others are done with the iteration

    def __init__(self, request: _Request, interval: float = 1.0) -> None:
        self.request = request
        self.interval = interval
        self._period = 1
        self._iterations = 0
        self._asked = time.monotonic()

    def before_train(self, runner: Runner) -> None:
        """Look for what an earlier request left."""
        self._leftover = Path(runner.work_dir, INTERRUPTED)
        self._superseded = distributed.is_main_process() and self._leftover.exists()

    def after_train_epoch(self, runner: Runner) -> None:
        """Delete what an earlier request left, if there is something newer."""
        if not self._superseded:
            return
        newest = files.last_checkpoint(runner.work_dir)
        if newest and newest.name != INTERRUPTED:
            self._leftover.unlink(missing_ok=True)
            self._superseded = False

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: Mapping | None = None,
    ) -> None:
        """Leave, if it is time and the state is whole."""
        if not isinstance(runner.train_loop, EpochTrainLoop):
            self.after_train_epoch(runner)
        self._iterations += 1
        # All ranks have the same answers to these.
        if self._iterations < self._period or not _is_whole(runner):
            return
        name = self._agreed()
        loop = runner.train_loop
        if not name or _ends_anyway(runner):
            return
        self._leave(runner, name, dict(epoch=loop.epoch, iter=loop.iter + 1))

    def after_val(self, runner: Runner) -> None:
        """Leave after the validation, unless it was the last of the training."""
        loop = runner.train_loop
        name = self._agreed()
        if name and loop.iter < loop.max_iters and not loop.stop_training:
            self._leave(runner, name, dict(epoch=loop.epoch, iter=loop.iter))

    def _agreed(self) -> str:
        """Name of the signal that any rank has received."""
        now = time.monotonic()
        each = (now - self._asked) / max(1, self._iterations)
        answers = distributed.gather_objects((self.request.name, each))
        slowest = max(seconds for _, seconds in answers)
        if distributed.world_size() > 1:
            self._period = max(1, min(_MOST_ITERATIONS, int(self.interval / slowest)))
        self._asked, self._iterations = now, 0
        return next((name for name, _ in answers if name), '')

    def _leave(self, runner: Runner, name: str, meta: dict) -> None:
        meta['buffers_of_ranks'] = _own_buffers(runner)
        runner.save_checkpoint(runner.work_dir, INTERRUPTED, meta=meta)
        if distributed.is_main_process():
            pointer = Path(runner.work_dir, 'last_checkpoint')
            files.write_whole(pointer, str(self._leftover))
        distributed.barrier()
        raise Preempted(
            f'{name}: ended after iteration {meta["iter"]} of {runner.max_iters}; no '
            f'iteration is lost ({self._leftover}). To go on:\n  {command_to_go_on()}'
        )


def _own_buffers(runner: Runner) -> list[dict[str, Tensor]]:
    """Each rank's own running statistics, which saving makes the same on all.

    Otherwise the last bits would differ from those of an uninterrupted run.
    """
    model = getattr(runner.model, 'module', runner.model)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    distributed.unify_buffers(model)
    own = {
        name: before[name].cpu()
        for name, buffer in model.named_buffers()
        if not torch.equal(buffer, before[name])
    }
    return distributed.gather_objects(own)


def command_to_go_on(arguments: Sequence[str] | None = None) -> str:
    """Write the command line that continues this run.

    Args:
        arguments (Sequence[str], optional): Of this process. Defaults to None,
            ``sys.argv``.
    """
    words = ['python', *(sys.argv if arguments is None else arguments)]
    if os.environ.get(COMMAND):
        words = shlex.split(os.environ[COMMAND])
    if not _resumes(words):
        words.append('--resume')
    return shlex.join(words)


def _resumes(words: Sequence[str]) -> bool:
    """Whether the last ``--resume`` means the newest checkpoint."""
    last = [place for place, word in enumerate(words) if word == '--resume'][-1:]
    rest = [word for place in last for word in words[place + 1 : place + 2]]
    return bool(last) and all(word == 'auto' or word.startswith('-') for word in rest)


def _is_whole(runner: Runner) -> bool:
    """Whether no gradients wait for further iterations."""
    wrapper = runner.optim_wrapper
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return all(one.should_update() for one in wrappers)


def _ends_anyway(runner: Runner) -> bool:
    """Whether a loop over iterations has done its last one."""
    loop = runner.train_loop
    return isinstance(loop, IterBasedTrainLoop) and loop.iter + 1 == loop.max_iters
