"""Checkpoints of finished steps: which one counts, which may go."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from medssl_mm.experiments.plan import Step
from medssl_mm.experiments.table import Table
from medssl_mm.files import last_checkpoint

__all__ = [
    'best_checkpoint',
    'checkpoint_for',
    'chosen_checkpoint',
    'drop_superseded',
    'last_checkpoint',
]


def best_checkpoint(folder: Path) -> Path | None:
    """Find the checkpoint that validation chose; None without validation."""
    found = list(folder.glob('best_*.pth'))
    return max(found, key=_age) if found else None


def _age(path: Path) -> tuple[int, float]:
    # Two are there where a run was killed between the new one and the deletion.
    # Times say little: of a copied folder, or where the clock was put back.
    step = re.search(r'_(\d+)$', path.stem)
    return int(step[1]) if step else -1, path.stat().st_mtime


def drop_superseded(folder: Path, epochs: Sequence[int] = ()) -> list[Path]:
    """Delete the checkpoints of a finished training that no step reads.

    The last one and the best one stay.

    Args:
        folder: Of the training.
        epochs: Whose checkpoints stay as well. Defaults to none.

    Returns:
        list[Path]: What was deleted; nothing when the last one is unknown.
    """
    last = last_checkpoint(folder)
    if last is None:
        return []
    kept = {last.name, getattr(best_checkpoint(folder), 'name', None)}
    kept |= {_of_epoch(folder, epoch).name for epoch in epochs}
    superseded = sorted(
        path
        for pattern in ('epoch_*.pth', 'iter_*.pth', 'best_*.pth')
        for path in folder.glob(pattern)
        if path.name not in kept
    )
    for path in superseded:
        path.unlink()
    return superseded


def chosen_checkpoint(step: Step, table: Table) -> Path | None:
    """Find the checkpoint of a training step that later steps start from.

    Returns:
        Path | None: None also where the training keeps the best one, and there
        is only the last.
    """
    best = None
    if table.validation or step.kind == 'pretrain':
        best = best_checkpoint(step.folder)
    return best if best or step.best else last_checkpoint(step.folder)


def checkpoint_for(step: Step, needed: Step, table: Table) -> Path | None:
    """Find the checkpoint of an earlier step that a step starts from."""
    if step.epoch is not None:
        path = _of_epoch(needed.folder, step.epoch)
        return path if path.is_file() else None
    return (
        last_checkpoint(needed.folder)
        if step.last
        else chosen_checkpoint(needed, table)
    )


def _of_epoch(folder: Path, epoch: int) -> Path:
    return folder / f'epoch_{epoch}.pth'
