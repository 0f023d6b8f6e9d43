"""Logged curves of training runs."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medssl_mm.errors import UserError

# Scores of probes that have a panel; the others are in the log.
_PROBE = re.compile(r'probe/(\w+)_(macro_AUROC|macro_AP|accuracy|Dice)')


def read_scalars(work_dir: str | Path) -> dict[str, np.ndarray]:
    """Read the logged curves of a training run, resumed parts joined.

    Returns:
        dict[str, np.ndarray]: Per name an array ``(points, 2)`` of step and
        value, sorted by step; where a resumed run logged a step again, the
        later value counts.

    Raises:
        UserError: When no log is found.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not files:
        raise UserError(
            f'{work_dir} holds no */vis_data/scalars.json; give the work '
            'directory of a training run'
        )
    points: dict[str, dict[float, float]] = {}
    for path in files:
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the last line of a killed run
            step = entry.get('step', entry.get('iter'))
            for name, value in entry.items():
                if (
                    step is not None
                    and name not in ('step', 'iter')
                    and isinstance(value, (int, float))
                ):
                    points.setdefault(name, {})[step] = value
    return {
        name: np.array(sorted(values.items()), dtype=float)
        for name, values in points.items()
    }


class CurvePanel(NamedTuple):
    """What one pair of axes of the training curves shows."""

    title: str
    lines: list[tuple[str, str, np.ndarray]]  # run, label, points (steps, 2)
    chance: list[np.ndarray]  # what a guess gets, points (steps, 2)
    starts: list[tuple[str, float]]  # run, score of its encoder before training


def curve_panels(curves: dict[str, dict[str, np.ndarray]]) -> list[CurvePanel]:
    """Sort logged curves into a panel per loss term, one of scores, and the probes'.

    The sum of the terms is shown only where no term is logged: it says little,
    and there is no chance level to compare it with.

    Args:
        curves: Per label of a run what :func:`read_scalars` returns.

    Raises:
        UserError: The logs hold neither a loss nor a score.
    """
    panels: dict[str, CurvePanel] = {}
    for label, values in curves.items():
        terms = [
            name for name in values if re.split('[/.]', name)[-1].startswith('loss_')
        ]
        sums = [name for name in values if name.split('/')[-1] == 'loss']
        for name in sorted(terms) or sorted(sums):
            panel = panels.setdefault(name, CurvePanel(name, [], [], []))
            panel.lines.append((label, label, values[name]))
            chance = values.get(_chance_of(name))
            if chance is not None and not any(
                np.array_equal(chance, other) for other in panel.chance
            ):
                panel.chance.append(chance)
    scores = [
        (label, f'{label} ({name.split("/")[-1]})', values[name])
        for label, values in curves.items()
        for name in sorted(values)
        if name.split('/')[-1] in ('mDice', 'macro_AUROC', 'contrastive_top1')
    ]
    found = list(panels.values())
    if scores:
        found.append(CurvePanel('score', scores, [], []))
    found += _probe_panels(curves)
    if not found:
        raise UserError('the logs hold neither a loss nor a score')
    return found


def _probe_panels(curves: dict[str, dict[str, np.ndarray]]) -> list[CurvePanel]:
    """A panel per probe and score, with the scores before the first step."""
    panels: dict[str, CurvePanel] = {}
    for label, values in curves.items():
        for name in sorted(values):
            found = _PROBE.fullmatch(name)
            if not found:
                continue
            title = f'{found[1]} probe: {found[2]}'
            panel = panels.setdefault(title, CurvePanel(title, [], [], []))
            points = values[name]
            if points[0, 0] == 0:
                panel.starts.append((label, float(points[0, 1])))
                points = points[1:]
            if len(points):
                panel.lines.append((label, label, points))
    return [panel for _, panel in sorted(panels.items())]


def _chance_of(term: str) -> str:
    """Name under which the chance level of a term is logged, if it has one."""
    if term == 'loss_contrastive':
        return 'chance_level'
    return f'{term.removeprefix("loss_")}_chance_level'
