"""What the pretrainings of a table cost, beside each other."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from statistics import median

from medssl_mm.errors import UserError
from medssl_mm.experiments.plan import DONE, Step
from medssl_mm.experiments.table import Table
from medssl_mm.results.logs import read_scalars

__all__ = ['pretraining_seconds', 'told_costs']


def pretraining_seconds(step: Step) -> float | None:
    """Seconds that a finished pretraining has computed, without starts and pauses.

    The median time of an iteration, as its log has it, times their number: other
    load on the machine for a while, or a run that was resumed, changes little.

    Returns:
        float | None: None where the log has no times.
    """
    try:
        times = read_scalars(step.folder).get('time')
    except UserError:
        return None
    if times is None or not len(times):
        return None
    return float(median(times[:, 1]) * times[-1, 0])


def told_costs(steps: Iterable[Step], table: Table) -> str:
    """Say what each row's pretraining costs as a share of the baseline's.

    Only those are compared that one kind of machine has computed with the same
    threads and precision, that of most of the baseline's.

    Args:
        steps: Of the table; pretrainings that are finished count.
        table: Names rows and baseline.

    Returns:
        str: A sentence; '' where there is nothing to compare.
    """
    finished = [step for step in steps if step.kind == 'pretrain' and step.done]
    seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for step in finished:
        found = pretraining_seconds(step)
        if found is not None:
            seconds[_machine(step)][step.row].append(found)
    base = next((row for row in table.rows if row.name == table.baseline), None)
    if base is None:
        return ''
    machine = max(seconds, key=lambda name: len(seconds[name][base.name]), default='')
    costs = {name: median(found) for name, found in seconds[machine].items() if found}
    others = [row for row in table.rows if row.name in costs and row is not base]
    if base.name not in costs or not others:
        return ''
    shares = ', '.join(
        f'{row.title} {costs[row.name] / costs[base.name]:.2f}' for row in others
    )
    return (
        f'Time of pretraining as a multiple of that of {base.title} '
        f'({costs[base.name] / 60:.1f} minutes): {shares}.'
    )


def _machine(step: Step) -> str:
    content = json.loads((step.folder / DONE).read_text(encoding='utf-8'))
    machine = dict(content.get('machine') or {})
    machine.pop('versions', None)
    return json.dumps(machine, sort_keys=True)
