"""How the steps of a table are run: on this machine or by Slurm.

What the tools of tables share: their options, what is finished, and the running.
"""

import argparse
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from medssl_mm.errors import UserError

if TYPE_CHECKING:
    from medssl_mm.experiments import Step, Table

__all__ = ['add_options', 'check_options', 'run_steps', 'shows_only', 'show_plan']


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how steps are run."""
    parser.add_argument(
        '--executor',
        choices=['local', 'slurm'],
        default='local',
        help='slurm: every step is a job, which asks for what "slurm:" in the table '
        'says and goes on without this process (default: local)',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=1,
        help='steps that run at the same time and share the cores (default: 1)',
    )
    parser.add_argument(
        '--devices',
        nargs='+',
        default=[],
        metavar='GPUS',
        help='CUDA_VISIBLE_DEVICES of every job, e.g. 0 1',
    )
    parser.add_argument(
        '--keep-checkpoints',
        action='store_true',
        help='keep all checkpoints of a finished training, '
        'not only the last and the best',
    )
    parser.add_argument(
        '--allow-seen',
        action='store_true',
        help='score cases all the same that a network was trained on or chosen by; the '
        'table says which',
    )
    parser.add_argument(
        '--status', action='store_true', help='show what is finished, runs or waits'
    )
    parser.add_argument(
        '--dry-run', action='store_true', help='the same with the commands'
    )
    parser.add_argument(
        '--no-run', action='store_true', help='only write the table of what is finished'
    )


def check_options(args: argparse.Namespace) -> None:
    """Refuse what cannot work before the libraries are loaded."""
    if args.jobs < 1:
        raise UserError(f'--jobs must be at least 1, got {args.jobs}')
    if args.executor == 'slurm' and (args.jobs > 1 or args.devices):
        raise UserError(
            '--jobs and --devices are for this machine; with --executor slurm the '
            'queue decides, and "slurm: {gpus: N}" in the table says what a step gets'
        )


def shows_only(args: argparse.Namespace) -> bool:
    """Whether the plan is all that is wanted."""
    return args.status or args.dry_run


def show_plan(
    args: argparse.Namespace,
    table: 'Table',
    steps: Mapping[str, 'Step'],
    more: str = '',
) -> None:
    """Print every step with its state, and its command with ``--dry-run``.

    Args:
        args: With the options of :func:`add_options`.
        table: The table.
        steps: Of its plan.
        more: What the last line counts besides. Defaults to ''.
    """
    from medssl_mm import experiments

    steps = _allowed(args, steps)
    states: Mapping[str, str] = {}
    if args.executor == 'slurm':
        states = experiments.job_states(dict(steps))
    for step in steps.values():
        if step.done:
            state = 'done'
        else:
            state = states.get(step.key, 'resume' if step.folder.exists() else 'new')
        print(f'[{state}] {step.title}')
        if args.dry_run:
            print(f'    {shlex.join(experiments.command_of(step, table, dict(steps)))}')
    done = sum(step.done for step in steps.values())
    print(f'{len(steps)} steps, {done} finished{more}')


def _allowed(
    args: argparse.Namespace, steps: Mapping[str, 'Step']
) -> dict[str, 'Step']:
    if not args.allow_seen:
        return dict(steps)
    return {key: replace(step, allow_seen=True) for key, step in steps.items()}


def run_steps(
    args: argparse.Namespace, table: 'Table', steps: dict[str, 'Step']
) -> list[str]:
    """Run what is not finished.

    Returns:
        list[str]: Messages of the steps that failed.
    """
    from medssl_mm import experiments

    if args.no_run:
        return []
    steps = _allowed(args, steps)

    def report(line: str) -> None:
        print(line, flush=True)

    if args.executor == 'slurm':
        return experiments.run_steps_by_slurm(
            table, steps, report, args.keep_checkpoints
        )
    return experiments.run_steps(
        table,
        steps,
        args.jobs,
        args.devices,
        report=report,
        keep_checkpoints=args.keep_checkpoints,
    )
