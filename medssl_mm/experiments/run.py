"""Runs the steps of a table, each after those it needs."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from medssl_mm import cores
from medssl_mm.errors import UserError
from medssl_mm.experiments.checkpoints import (
    checkpoint_for,
    chosen_checkpoint,
    drop_superseded,
    last_checkpoint,
)
from medssl_mm.experiments.machines import machine_of
from medssl_mm.experiments.plan import DONE, Step
from medssl_mm.experiments.search import choose
from medssl_mm.experiments.table import Table
from medssl_mm.files import inherited_lock, locked, shipped, write_json
from medssl_mm.results import Run, pool_results

__all__ = ['StepRunner', 'command_of', 'finished_runs', 'run_steps', 'tools_folder']

POLL = 2  # seconds between looks at what another process is busy with
# Seconds that a step has to end by itself: to finish its iteration and save it.
GRACE = 300


def tools_folder() -> Path:
    """Find the tools: beside the package, or in it when installed."""
    return shipped('tools')


def command_of(step: Step, table: Table, steps: dict[str, Step]) -> list[str]:
    """Write the command line of a step.

    Checkpoints of earlier steps appear as ``<key>`` until these are finished.
    """
    if step.command:
        return list(step.command)
    tools = tools_folder()

    def checkpoint_of(key: str) -> str:
        known = steps.get(key)
        found = None if known is None else checkpoint_for(step, known, table)
        return str(found or f'<{key}>')

    options = dict(step.options)
    source = step.needs[0] if step.needs else ''
    if step.choices:
        choice = choose(step, steps)
        source = choice.key if choice else f'best of {len(step.choices)} trainings'
        options.update(choice.options if choice else {})
    arguments = []
    if step.kind == 'test':
        arguments.append(checkpoint_of(source))
        options['test_evaluator.out_dir'] = str(step.folder)
    else:
        arguments += ['--resume', '--seed', str(step.seed)]
        if table.amp:
            arguments += ['--amp', table.amp]
        if step.kind == 'train' and step.weights:
            weights = step.weights
            weights = checkpoint_of(weights) if weights in steps else weights
            for option in (table.weights_option, *step.weights_options):
                options[option] = weights
    if step.allow_seen:
        arguments.append('--allow-seen')
    arguments += ['--work-dir', str(step.folder)]
    if options:
        arguments.append('--cfg-options')
        arguments += [f'{key}={_literal(value)}' for key, value in options.items()]
    name = 'test' if step.kind == 'test' else 'train'
    if table.processes:
        start = ['bash', str(tools / f'dist_{name}.sh'), step.config]
        if name == 'test':  # dist_test.sh CONFIG CHECKPOINT N
            start += [arguments.pop(0), str(table.processes)]
        else:
            start.append(str(table.processes))
    else:
        start = [sys.executable, str(tools / f'{name}.py'), step.config]
    return start + arguments


def _literal(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


class StepRunner:
    """Starts the processes of steps, and ends them.

    Args:
        table (Table): The table.
        steps (dict[str, Step]): From :func:`plan`.
        keep_checkpoints (bool): Whether all checkpoints of a finished
            training stay, not only the last and the best. Defaults to False.
    """

    def __init__(
        self, table: Table, steps: dict[str, Step], keep_checkpoints: bool = False
    ) -> None:
        self.table = table
        self.steps = steps
        self.keep_checkpoints = keep_checkpoints
        self._stopped = False
        self._change = threading.Lock()

    def __call__(
        self, step: Step, environment: dict[str, str], begun: Callable[[Path], None]
    ) -> bool:
        """Run one step; its output goes to ``run.log`` in its folder.

        Args:
            step: The step.
            environment: Added to that of this process.
            begun: Takes the log's path when the step starts.

        Returns:
            bool: Whether it is done now; False while another process is at it.

        Raises:
            UserError: When it fails, with the end of the log.
        """
        with locked(step.folder) as lock:
            if lock is None:
                return False
            if not step.done:
                self._run(step, environment, lock, begun)
        return True

    def stop(self) -> None:
        """End what runs, and start nothing more."""
        with self._change:
            self._stopped = True  # seen where the processes are waited for

    def _execute(
        self, command: list[str], environment: dict[str, str], lock: int, log: Path
    ) -> int:
        with self._change, log.open('a', encoding='utf-8') as output:
            if self._stopped:
                return -signal.SIGTERM
            output.write(f'$ {shlex.join(command)}\n')
            output.flush()
            # The step holds the lock as well: it may outlive this process. It has a
            # session of its own, so that all of its processes can be ended.
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                pass_fds=[lock],
                start_new_session=True,
                env={
                    'PYTHON': sys.executable,
                    **os.environ,
                    **environment,
                    **inherited_lock(log.parent),
                },
            )
        return self._wait(process, log)

    def _wait(self, process: subprocess.Popen, log: Path) -> int:
        """Wait for a step; end it when it says nothing, or does not want to end.

        Raises:
            UserError: It was silent for too long.
        """
        silence, size, since = self.table.silence, -1, time.monotonic()
        asked: float | None = None  # when it was asked to end
        silent = False
        while True:
            try:
                code = process.wait(min(POLL, (silence or POLL) / 4))
                break
            except subprocess.TimeoutExpired:
                now = time.monotonic()
            if log.stat().st_size != size:
                size, since = log.stat().st_size, now
            silent = silent or bool(silence and now - since > silence)
            if asked is None and (silent or self._stopped):
                asked = now
                _signal(process, signal.SIGTERM)
            if asked is not None and now - asked > min(GRACE, silence or GRACE):
                # Frozen, or deaf to SIGTERM: nothing else is left.
                _signal(process, signal.SIGKILL)
        if silent:
            raise UserError(
                f'the step wrote no line for {silence:g} s and was ended: the disk or '
                'network does not answer, or a process hangs. Run the table again to '
                f'resume it; "silence" (seconds) in the table allows more. Log: {log}'
            )
        return code

    def _run(
        self,
        step: Step,
        environment: dict[str, str],
        lock: int,
        begun: Callable[[Path], None],
    ) -> None:
        _check_needed(step, self.table, self.steps)
        command = command_of(step, self.table, self.steps)
        log = step.folder / 'run.log'
        begun(log)
        started = time.monotonic()
        code = self._execute(command, environment, lock, log)
        if step.outputs:
            finished = step.done
        elif step.kind == 'test':
            finished = (step.folder / 'metrics.json').exists()
        else:
            finished = last_checkpoint(step.folder) is not None
            if finished and not code and chosen_checkpoint(step, self.table) is None:
                raise UserError(
                    f'{step.title} has ended without a best checkpoint (best_*.pth in '
                    f'{step.folder}), although it validates: the score that chooses '
                    f'it was never a number, or never computed, see {log}. Correct '
                    'default_hooks.checkpoint.save_best or the validation data, or '
                    'set "validation: false" in the table to test the last weights'
                )
        if code or not finished:
            lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
            raise UserError(
                f'{step.title} failed with exit code {code}; run the table '
                f'again to resume it. End of {log}:\n  ' + '\n  '.join(lines[-12:])
            )
        write_json(
            step.folder / DONE,
            dict(
                key=step.key,
                title=step.title,
                command=command,
                seconds=round(time.monotonic() - started, 1),
                machine=machine_of(step, self.table, environment),
            ),
        )
        if not self.keep_checkpoints:
            drop_superseded(step.folder, step.keeps)


def _signal(process: subprocess.Popen, number: signal.Signals) -> None:
    """Send a signal to a step and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _check_needed(step: Step, table: Table, steps: dict[str, Step]) -> None:
    for needed in (steps[key] for key in step.needs):
        if checkpoint_for(step, needed, table) is None:
            what = 'best checkpoint' if needed.best and not step.last else 'checkpoint'
            if step.epoch is not None:
                what = f'checkpoint epoch_{step.epoch}.pth'
            raise UserError(
                f'{step.title} needs the weights of "{needed.title}", which '
                f'is finished, but {needed.folder} holds no {what} any more; put '
                'it back, or delete the whole folder and run the table again to '
                'train it anew'
            )


@contextmanager
def _ended_like_an_interrupt() -> Iterator[None]:
    # A plain SIGTERM would leave the processes of the steps behind.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def run_steps(
    table: Table,
    steps: dict[str, Step],
    jobs: int = 1,
    devices: Sequence[str] = (),
    report: Callable[[str], None] = print,
    keep_checkpoints: bool = False,
) -> list[str]:
    """Run what is not finished, each step after those it needs.

    Steps that another process runs are left to it, so that several processes
    share the work. Ctrl-C and SIGTERM end the steps; after SIGKILL they go on,
    and the next process waits for them.

    Args:
        table: The table.
        steps: From :func:`plan`.
        jobs: Steps that run at the same time; they share the cores
            (:func:`medssl_mm.cores.job_environment`).
        devices: Per job the GPUs it may see, e.g. '0,1'. Defaults to (), which
            leaves the environment alone.
        report: Takes a line for the screen.
        keep_checkpoints: Whether all checkpoints of the trainings that end now
            stay, not only the last and the best.

    Returns:
        list[str]: Messages of the steps that failed; steps that need them
        are left out, all others run.
    """
    jobs_of = _Jobs(table, steps, jobs, devices, report, keep_checkpoints)
    with _ended_like_an_interrupt(), ThreadPoolExecutor(jobs) as pool:
        try:
            while jobs_of.turn(pool):
                pass
        except BaseException:
            jobs_of.run_step.stop()
            raise
    return jobs_of.errors


class _Jobs:
    """Steps that run now, those that another process runs, and what failed."""

    def __init__(
        self,
        table: Table,
        steps: dict[str, Step],
        jobs: int,
        devices: Sequence[str],
        report: Callable[[str], None],
        keep_checkpoints: bool,
    ) -> None:
        self.table, self.jobs, self.devices = table, jobs, devices
        self.report = report
        self.work = _Work(steps)
        self.run_step = StepRunner(table, steps, keep_checkpoints)
        self.errors: list[str] = []
        self._total = len(steps)
        self._running: dict[Future, tuple[Step, int, float]] = {}
        self._free = list(range(jobs))
        self._elsewhere: list[Step] = []
        self._told: set[str] = set()
        report(f'{self._total} steps, {len(self.work.finished)} finished before')

    def turn(self, pool: ThreadPoolExecutor) -> bool:
        """Start what can start, wait until something ends; False at the end."""
        while self._free and self.work.ready:
            self._start(pool, self.work.ready.pop(0))
        if not self._running and not self._elsewhere:
            return False
        again = True
        if self._running:
            before = self.work.ended
            look = POLL if self._elsewhere and self._free else None
            ended = wait(self._running, look, return_when=FIRST_COMPLETED).done
            for future in ended:
                self._end(future)
            again = not ended or before < self.work.ended
        else:
            time.sleep(POLL)
        if again:  # what was busy before may be free now
            self.work.put_back(self._elsewhere)
            self._elsewhere.clear()
        return True

    def _start(self, pool: ThreadPoolExecutor, step: Step) -> None:
        slot = self._free.pop()
        environment = cores.job_environment(self.jobs, slot, self.table.processes)
        if self.devices:
            environment['CUDA_VISIBLE_DEVICES'] = self.devices[slot % len(self.devices)]
        number = f'[{self.work.ended + len(self._running) + 1}/{self._total}]'
        future = pool.submit(
            self.run_step,
            step,
            environment,
            lambda log: self.report(f'{number} {step.title} (log: {log})'),
        )
        self._running[future] = (step, slot, time.monotonic())

    def _end(self, future: Future) -> None:
        step, slot, started = self._running.pop(future)
        self._free.append(slot)
        error = future.exception()
        seconds = time.monotonic() - started
        if error is None and not future.result():
            self._elsewhere.append(step)
            if step.key not in self._told:
                self._told.add(step.key)
                self.report(f'  another process is at it: {step.title}')
        elif error is None:
            self.work.finish(step)
            self.report(f'  done in {seconds:.0f} s: {step.title}')
        elif isinstance(error, (UserError, OSError)):
            self.work.fail(step)
            self.errors.append(str(error))
            self.report(f'  FAILED after {seconds:.0f} s: {step.title}')
        else:
            raise error


class _Work:
    """What is finished, what failed, and what could start now."""

    def __init__(self, steps: dict[str, Step]) -> None:
        self.steps = steps
        self.finished: set[str] = set()
        self.failed: set[str] = set()
        self.ready: list[Step] = []
        self._places = {key: place for place, key in enumerate(steps)}
        self._graph = TopologicalSorter({k: step.needs for k, step in steps.items()})
        self._graph.prepare()
        self._look()

    @property
    def ended(self) -> int:
        """How many steps need no more attention."""
        return len(self.finished) + len(self.failed)

    def finish(self, step: Step) -> None:
        """Let the steps start that waited for this one."""
        self.finished.add(step.key)
        self._graph.done(step.key)
        self._look()

    def fail(self, step: Step) -> None:
        """Give up a step, and all that need it."""
        self.failed.add(step.key)
        for other in self.steps.values():  # in an order that can be run
            if set(other.needs) & self.failed:
                self.failed.add(other.key)

    def put_back(self, steps: Sequence[Step]) -> None:
        """Let steps that could not start be tried again."""
        self.ready = sorted(
            [*steps, *self.ready], key=lambda step: self._places[step.key]
        )

    def _look(self) -> None:
        while keys := self._graph.get_ready():
            for key in keys:
                step = self.steps.get(key)
                if step is None:
                    continue  # needed, but not part of this work
                if step.done:
                    self.finished.add(key)
                    self._graph.done(key)
                else:
                    self.put_back([step])


def finished_runs(
    results: list[tuple[Run, list[tuple[str, ...]]]], steps: dict[str, Step]
) -> list[Run]:
    """Keep the table rows with at least one finished seed.

    A seed is finished when the tests of all its splits are; these are then
    pooled into the folder of the seed.
    """
    runs = []
    for run, tests in results:
        finished = []
        for seed, folder, keys in zip(run.seeds, run.folders, tests, strict=True):
            if not all(steps[key].done for key in keys):
                continue
            if len(keys) > 1:
                pool_results([steps[key].folder for key in keys], folder)
            finished.append((seed, folder))
        if finished:
            seeds, folders = zip(*finished)
            runs.append(replace(run, folders=folders, seeds=seeds))
    return runs
