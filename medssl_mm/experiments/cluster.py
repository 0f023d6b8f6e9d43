"""Runs the steps of a table as jobs of Slurm, each after those it needs."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl_mm.errors import InstallError, UserError
from medssl_mm.experiments.plan import Step
from medssl_mm.experiments.run import StepRunner
from medssl_mm.experiments.table import Table
from medssl_mm.files import write_json

__all__ = ['JOB', 'ClusterStep', 'job_states', 'run_steps_by_slurm']

JOB = 'slurm.json'  # in the folder of a step
POLL = 5  # seconds between looks at the queue
# A job that is at its time limit goes on in its next stretch, as often as it takes.
_STRETCHES = 1000


@dataclass
class ClusterStep:
    """What a job does: the step, in a process of its own that can be told to end.

    Args:
        table: The table.
        steps: The step and those it needs.
        key: Of the step.
        keep_checkpoints: See :class:`~medssl_mm.experiments.run.StepRunner`.
    """

    table: Table
    steps: dict[str, Step]
    key: str
    keep_checkpoints: bool

    def __call__(self) -> None:
        """Run the step; one that another process is at is waited for."""
        self._runner = StepRunner(self.table, self.steps, self.keep_checkpoints)
        # In a thread, so that a signal finds the main one at leisure.
        with ThreadPoolExecutor(1) as pool:
            self._running: Future = pool.submit(self._run)
            self._running.result()

    def _run(self) -> None:
        while not self._runner(self.steps[self.key], {}, begun=print):
            time.sleep(POLL)

    def checkpoint(self) -> Any:
        """End the step so that it can go on, when Slurm is about to end the job."""
        from submitit.helpers import DelayedSubmission

        self._runner.stop()
        wait([self._running])
        again = (self.table, self.steps, self.key, self.keep_checkpoints)
        return DelayedSubmission(ClusterStep(*again))


def run_steps_by_slurm(
    table: Table,
    steps: dict[str, Step],
    report: Callable[[str], None] = print,
    keep_checkpoints: bool = False,
) -> list[str]:
    """Submit what is not finished and not submitted, and wait for its end.

    The jobs do not need this process: when it ends, they go on, and the next call
    waits for them.

    Args:
        table: The table; its ``slurm`` says what a step asks for.
        steps: From :func:`plan`.
        report: Takes a line for the screen.
        keep_checkpoints: Whether all checkpoints of a finished training stay.

    Returns:
        list[str]: Messages of the steps that failed or were cancelled.

    Raises:
        InstallError: submitit is not installed.
        UserError: Slurm is not there, or takes no jobs.
    """
    jobs: dict[str, str] = {}
    states = job_states(steps)
    finished = sum(step.done for step in steps.values())
    report(f'{len(steps)} steps, {finished} finished before')
    for step in steps.values():
        if step.done:
            continue
        if step.key in states:
            jobs[step.key] = _job_of(step)
            report(f'job {jobs[step.key]} ({states[step.key]}): {step.title}')
            continue
        needed = [jobs[key] for key in step.needs if key in jobs]
        jobs[step.key] = _submit(table, steps, step, needed, keep_checkpoints)
        write_json(step.folder / JOB, dict(job=jobs[step.key], title=step.title))
        report(f'job {jobs[step.key]} submitted: {step.title}')
    return _wait_for({key: steps[key] for key in jobs}, report)


def job_states(steps: dict[str, Step]) -> dict[str, str]:
    """Ask Slurm for the jobs of steps that wait or run.

    Returns:
        dict[str, str]: By the key of the step, 'RUNNING' or 'PENDING (Dependency)'.

    Raises:
        UserError: Slurm is not there or does not answer.
    """
    jobs = {_job_of(step): key for key, step in steps.items() if _job_of(step)}
    command = ['squeue', '--noheader', '--user', getpass.getuser()]
    try:
        done = subprocess.run(
            [*command, '--format', '%i|%T|%r'],
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError as error:
        raise UserError(
            'there is no squeue on PATH: run this where Slurm is, or with '
            '--executor local'
        ) from error
    except subprocess.CalledProcessError as error:
        raise UserError(f'squeue: {error.stderr.strip()}') from error
    states = {}
    for line in done.stdout.splitlines():
        job, state, reason = line.split('|')
        if job in jobs:
            waits = state == 'PENDING' and reason != 'None'
            states[jobs[job]] = f'{state} ({reason})' if waits else state
    return states


def _job_of(step: Step) -> str:
    try:
        return str(json.loads((step.folder / JOB).read_text(encoding='utf-8'))['job'])
    except (OSError, ValueError, KeyError, TypeError):
        return ''


def _submit(
    table: Table,
    steps: dict[str, Step],
    step: Step,
    needed: list[str],
    keep_checkpoints: bool,
) -> str:
    # What Slurm sends before the end reaches the training itself as well, which
    # knows this signal; submitit's own default would kill it.
    os.environ['SUBMITIT_PREEMPT_SIGNAL'] = 'USR1'
    try:
        import submitit
    except ImportError as error:
        raise InstallError(
            '--executor slurm needs submitit; install medssl_mm[cluster]'
        ) from error
    settings = table.slurm.of(step.kind)
    if needed:
        depends = {'dependency': f'afterok:{":".join(needed)}'}
        depends['kill_on_invalid_dep'] = 'yes'
        settings['additional_parameters'] = {
            **settings.get('additional_parameters', {}),
            **depends,
        }
    executor = submitit.SlurmExecutor(
        folder=step.folder / 'slurm', max_num_timeout=_STRETCHES, python=sys.executable
    )
    cpus = settings.get('cpus_per_task')
    executor.update_parameters(
        job_name=step.key,
        # Slurm does not hand that of the job on to its steps.
        srun_args=[f'--cpus-per-task={cpus}'] if cpus else [],
        **settings,
    )
    part = {key: steps[key] for key in (*step.needs, step.key) if key in steps}
    if step.weights in steps:
        part[step.weights] = steps[step.weights]
    try:
        job = executor.submit(ClusterStep(table, part, step.key, keep_checkpoints))
    except (submitit.core.utils.FailedJobError, FileNotFoundError) as error:
        raise UserError(f'Slurm does not take "{step.title}": {error}') from error
    return job.job_id


def _wait_for(steps: dict[str, Step], report: Callable[[str], None]) -> list[str]:
    waiting, errors = dict(steps), []
    gone: set[str] = set()
    try:
        while waiting:
            states = job_states(waiting)
            for key in [key for key in waiting if key not in states]:
                if key not in gone and not waiting[key].done:
                    gone.add(key)  # a network drive may show its files a bit later
                    continue
                step = waiting.pop(key)
                if step.done:
                    report(f'  done: {step.title}')
                else:
                    report(f'  FAILED or cancelled: {step.title}')
                    errors.append(_why(step))
            if waiting:
                time.sleep(POLL)
    except KeyboardInterrupt:
        report(
            f'{len(waiting)} jobs go on without this process: look at them with '
            '--status, end them with scancel'
        )
        raise
    return errors


def _why(step: Step) -> str:
    log = Path(step.folder, 'run.log')
    job = f'{step.title}: job {_job_of(step)} ended before it was finished'
    if not log.exists():
        return f'{job}, and had not begun (see {step.folder / "slurm"})'
    lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
    return f'{job}; run the table again to go on. End of {log}:\n  ' + '\n  '.join(
        lines[-12:]
    )
