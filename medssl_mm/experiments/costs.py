"""What the pretrainings of a table cost, beside each other."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

from medssl_mm.errors import UserError
from medssl_mm.experiments.machines import gpu_count
from medssl_mm.experiments.plan import DONE, Step
from medssl_mm.experiments.table import Table
from medssl_mm.results.logs import read_scalars

__all__ = ['Costs', 'pretraining_costs', 'pretraining_seconds']


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


@dataclass(frozen=True)
class Costs:
    """Time of the pretrainings of a table.

    Args:
        baseline (str): Title of the row that the others are compared with.
            Defaults to ''.
        seconds (float): Of a pretraining of the baseline. Defaults to 0.
        shares (Mapping[str, float]): Title of a row to its time as a multiple of
            that of the baseline. Defaults to none.
    """

    baseline: str = ''
    seconds: float = 0.0
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """In words; '' where there is nothing to compare."""
        if len(self.shares) < 2:
            return ''
        return (
            f'Time of pretraining as a multiple of that of {self.baseline} '
            f'({self.seconds / 60:.1f} minutes).'
        )


def pretraining_costs(steps: Iterable[Step], table: Table) -> Costs:
    """What each row's pretraining costs as a multiple of the baseline's.

    Only those are compared that one kind of machine has computed with the same
    threads and precision, that of most of the baseline's.

    Args:
        steps: Of the table; pretrainings that are finished count.
        table: Names rows and baseline.
    """
    finished = [step for step in steps if step.kind == 'pretrain' and step.done]
    seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for step in finished:
        found = pretraining_seconds(step)
        if found is not None:
            seconds[_machine(step)][step.row].append(found)
    base = next((row for row in table.rows if row.name == table.baseline), None)
    if base is None:
        return Costs()
    machine = max(seconds, key=lambda name: len(seconds[name][base.name]), default='')
    costs = {name: median(found) for name, found in seconds[machine].items() if found}
    if base.name not in costs:
        return Costs()
    shares = {
        row.title: costs[row.name] / costs[base.name]
        for row in table.rows
        if row.name in costs
    }
    return Costs(base.title, costs[base.name], shares)


def _machine(step: Step) -> str:
    content = json.loads((step.folder / DONE).read_text(encoding='utf-8'))
    machine = dict(content.get('machine') or {})
    machine.pop('versions', None)
    # Which of the equal GPUs of a computer it was says nothing.
    machine['gpus'] = gpu_count(machine.get('gpus'))
    return json.dumps(machine, sort_keys=True)
