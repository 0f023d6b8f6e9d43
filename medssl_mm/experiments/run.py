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
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path

from medssl_mm import cores
from medssl_mm.errors import UserError
from medssl_mm.experiments.checkpoints import (
    checkpoint_for,
    drop_superseded,
    last_checkpoint,
)
from medssl_mm.experiments.plan import DONE, Step
from medssl_mm.experiments.table import Table
from medssl_mm.files import locked, write_json
from medssl_mm.results import Run, pool_results

__all__ = [
    'StepRunner',
    'command_of',
    'finished_runs',
    'run_steps',
    'tools_folder',
]

POLL = 2  # seconds between looks at what another process is busy with


def tools_folder() -> Path:
    """Find the tools: beside the package, or in it when installed."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / 'tools', package / '.mim' / 'tools'):
        if (folder / 'train.py').exists():
            return folder
    raise UserError(
        f'the tools are neither in {package.parent} nor in {package}/.mim; '
        'install the package again'
    )


def command_of(step: Step, table: Table, steps: dict[str, Step]) -> list[str]:
    """Write the command line of a step.

    Checkpoints of earlier steps appear as ``<key>`` until these are finished.
    """
    tools = tools_folder()

    def checkpoint_of(key):
        return str(checkpoint_for(step, steps[key], table) or f'<{key}>')

    options = dict(step.options)
    arguments = []
    if step.kind == 'test':
        arguments.append(checkpoint_of(step.needs[0]))
        options['test_evaluator.out_dir'] = str(step.folder)
    else:
        arguments += ['--resume', '--seed', str(step.seed)]
        if table.amp:
            arguments += ['--amp', table.amp]
        if step.kind == 'train' and step.weights:
            options[table.weights_option] = (
                checkpoint_of(step.weights) if step.weights in steps else step.weights
            )
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


def _literal(value) -> str:
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
        self._processes: set[subprocess.Popen] = set()
        self._stopped = False
        self._change = threading.Lock()

    def __call__(
        self, step: Step, environment: dict[str, str], begun: Callable[[Path], None]
    ) -> bool:
        """Run one step; its output goes to ``run.log`` in its folder.

        Args:
            step (Step): The step.
            environment (dict[str, str]): Added to that of this process.
            begun (Callable): Takes the log's path when the step starts.

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
            self._stopped = True
            for process in self._processes:
                process.terminate()

    def _execute(self, command, environment, lock, output) -> int:
        with self._change:
            if self._stopped:
                return -signal.SIGTERM
            # The step holds the lock as well: it may outlive this process.
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                pass_fds=[lock],
                env={'PYTHON': sys.executable, **os.environ, **environment},
            )
            self._processes.add(process)
        try:
            return process.wait()
        finally:
            with self._change:
                self._processes.discard(process)

    def _run(self, step, environment, lock, begun) -> None:
        _check_needed(step, self.table, self.steps)
        command = command_of(step, self.table, self.steps)
        log = step.folder / 'run.log'
        begun(log)
        started = time.monotonic()
        with log.open('a', encoding='utf-8') as output:
            output.write(f'$ {shlex.join(command)}\n')
            output.flush()
            code = self._execute(command, environment, lock, output)
        if step.kind == 'test':
            finished = (step.folder / 'metrics.json').exists()
        else:
            finished = last_checkpoint(step.folder) is not None
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
            ),
        )
        if not self.keep_checkpoints:
            drop_superseded(step.folder)


def _check_needed(step: Step, table: Table, steps: dict[str, Step]) -> None:
    for needed in map(steps.get, step.needs):
        if checkpoint_for(step, needed, table) is None:
            raise UserError(
                f'{step.title} needs the weights of "{needed.title}", which '
                f'is finished, but {needed.folder} holds no checkpoint any '
                f'more; put it back, or delete {needed.folder / DONE} and '
                'run the table again to train it anew'
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
        table (Table): The table.
        steps (dict[str, Step]): From :func:`plan`.
        jobs (int): Steps that run at the same time; they share the cores
            (:func:`medssl_mm.cores.job_environment`). Defaults to 1.
        devices (Sequence[str]): Per job the GPUs it may see, e.g. '0,1'.
            Defaults to (), which leaves the environment alone.
        report (Callable): Takes a line for the screen. Defaults to print.
        keep_checkpoints (bool): Whether all checkpoints of the trainings that
            end now stay, not only the last and the best. Defaults to False.

    Returns:
        list[str]: Messages of the steps that failed; steps that need them
        are left out, all others run.
    """
    work = _Work(steps)
    total, errors, running, free = len(steps), [], {}, list(range(jobs))
    elsewhere: list[Step] = []
    told: set[str] = set()
    report(f'{total} steps, {len(work.finished)} finished before')
    run_step = StepRunner(table, steps, keep_checkpoints)

    def start(pool, step):
        slot = free.pop()
        environment = cores.job_environment(jobs, slot, table.processes)
        if devices:
            environment['CUDA_VISIBLE_DEVICES'] = devices[slot % len(devices)]
        number = work.ended + len(running) + 1
        future = pool.submit(
            run_step,
            step,
            environment,
            lambda log: report(f'[{number}/{total}] {step.title} (log: {log})'),
        )
        running[future] = (step, slot, time.monotonic())

    def end(future):
        step, slot, started = running.pop(future)
        free.append(slot)
        error = future.exception()
        seconds = time.monotonic() - started
        if error is None and not future.result():
            elsewhere.append(step)
            if step.key not in told:
                told.add(step.key)
                report(f'  another process is at it: {step.title}')
        elif error is None:
            work.finish(step)
            report(f'  done in {seconds:.0f} s: {step.title}')
        elif isinstance(error, (UserError, OSError)):
            work.fail(step)
            errors.append(str(error))
            report(f'  FAILED after {seconds:.0f} s: {step.title}')
        else:
            raise error

    with _ended_like_an_interrupt(), ThreadPoolExecutor(jobs) as pool:
        try:
            while True:
                while free and work.ready:
                    start(pool, work.ready.pop(0))
                if not running and not elsewhere:
                    break
                if running:
                    before = work.ended
                    ended = wait(
                        running,
                        POLL if elsewhere and free else None,
                        return_when=FIRST_COMPLETED,
                    ).done
                    for future in ended:
                        end(future)
                    again = not ended or before < work.ended
                else:
                    time.sleep(POLL)
                    again = True
                if again:  # what was busy before may be free now
                    work.put_back(elsewhere)
                    elsewhere.clear()
        except BaseException:
            run_step.stop()
            raise
    return errors


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
        folders = []
        for folder, keys in zip(run.folders, tests, strict=True):
            if not all(steps[key].done for key in keys):
                continue
            if len(keys) > 1:
                pool_results([steps[key].folder for key in keys], folder)
            folders.append(folder)
        if folders:
            runs.append(replace(run, folders=tuple(folders)))
    return runs
