"""One cell of a table again, as another machine would compute it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from medssl_mm.errors import UserError
from medssl_mm.experiments.plan import Step, plan
from medssl_mm.experiments.run import finished_runs
from medssl_mm.experiments.table import Table
from medssl_mm.results import Run

__all__ = ['SETTINGS', 'repeat_check', 'told_spread', 'under']

#: What is set in the environment of a repetition, by its name.
SETTINGS = {
    'avx2': {'ONEDNN_MAX_CPU_ISA': 'AVX2', 'ATEN_CPU_CAPABILITY': 'avx2'},
    'threads-1': {'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'},
    'threads-2': {'OMP_NUM_THREADS': '2', 'MKL_NUM_THREADS': '2'},
}
AS_SET = 'as set'


@contextmanager
def under(setting: str) -> Iterator[None]:
    """Put a setting into the environment that steps inherit."""
    before = dict(os.environ)
    os.environ.update(SETTINGS.get(setting, {}))
    try:
        yield
    finally:
        for key in SETTINGS.get(setting, {}):
            if key in before:
                os.environ[key] = before[key]
            else:
                os.environ.pop(key, None)


def repeat_check(
    table: Table,
    run: Callable[[Table, dict[str, Step]], list[str]],
    settings: Sequence[str] = tuple(SETTINGS),
    planned: Callable = plan,
) -> tuple[list[Run], list[str]]:
    """Compute one cell as the machine is set, and once more under each setting.

    Everything is done anew, the pretraining too, in folders beside those of the
    table: ``RUNS_DIR-repeat-SETTING``. What is finished is not done again.

    Args:
        table: Of one row, evaluation and fraction.
        run: Runs the steps of a table; returns the messages of those that failed.
        settings: Of :data:`SETTINGS`. Defaults to all.
        planned: Works out the steps. Defaults to :func:`plan`.

    Returns:
        tuple: A run for each setting, labelled with it, the first one as set; and
        the messages.

    Raises:
        UserError: When the table is more than one cell.
    """
    counts = [len(table.rows), len(table.evaluations), len(table.fractions)]
    if counts != [1, 1, 1]:
        raise UserError(
            'a repeat check is of one cell, but this table has '
            f'{counts[0]} row(s), {counts[1]} evaluation(s) and {counts[2]} share(s) '
            'of labels; choose one of each: --rows NAME --evaluations NAME '
            '--fractions 1'
        )
    runs: list[Run] = []
    errors: list[str] = []
    for setting in (AS_SET, *settings):
        own = table
        if setting != AS_SET:
            folder = table.runs_dir
            own = replace(
                table, runs_dir=folder.with_name(f'{folder.name}-repeat-{setting}')
            )
        steps, results = planned(own)
        with under(setting):
            errors += run(own, steps)
        runs += [replace(one, label=setting) for one in finished_runs(results, steps)]
    return runs, errors


def told_spread(scores: Mapping[str, float]) -> str:
    """Say how far the scores of the settings are apart.

    Args:
        scores: Of each setting, 0-1.
    """
    low, high = min(scores.values()), max(scores.values())
    return (
        f'Spread over {len(scores)} settings of one processor: {100 * low:.1f} to '
        f'{100 * high:.1f}, {100 * (high - low):.1f} points; differences below that '
        'say nothing about another machine.'
    )
