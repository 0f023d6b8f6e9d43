"""How many patients of a table's trainings are labelled, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from medssl_mm.experiments.plan import Step, resolved_config
from medssl_mm.experiments.table import Table
from medssl_mm.store import load_split, open_store, take_fraction

__all__ = ['told_labels']


def told_labels(
    steps: Iterable[Step],
    table: Table,
    resolve: Callable[[str, dict], dict] = resolved_config,
) -> str:
    """Say how many labelled patients trainings learn from and choose weights by.

    Args:
        steps: Of the table; trainings that are finished count.
        table: Names the shares of the labels.
        resolve: Turns a config and options into settings. Defaults to
            :func:`medssl_mm.experiments.plan.resolved_config`.

    Returns:
        str: A sentence; '' where no training has a split.
    """
    share_key, seed_key = table.fraction_options
    # Trainings of other seeds and weights have as many.
    first: dict[tuple, Step] = {}
    for step in steps:
        if step.kind == 'train' and step.done:
            options = {k: v for k, v in step.options.items() if k != seed_key}
            first.setdefault((step.config, repr(sorted(options.items()))), step)
    found: dict[float, set[str]] = {}
    for step in first.values():
        told = _told(resolve(step.config, step.options))
        if told:
            found.setdefault(step.options.get(share_key, 1.0), set()).add(told)
    if not found:
        return ''
    parts = '; '.join(
        f'{100 * share:g} %: {" or ".join(sorted(found[share]))}'
        for share in sorted(found, reverse=True)
    )
    return f'Labelled patients: {parts}.'


def _told(settings: Mapping[str, Any]) -> str:
    train = _patients(settings, 'train')
    if train is None:
        return ''
    validates = settings.get('val_cfg') is not None
    choosing = _patients(settings, 'val') if validates else None
    return f'{train}' + (f' and {choosing} of validation' if choosing else '')


def _patients(settings: Mapping[str, Any], role: str) -> int | None:
    """Patients that the data set of a loader takes; None without a split."""
    dataset = (settings.get(f'{role}_dataloader') or {}).get('dataset') or {}
    if not dataset.get('data_root') or dataset.get('split') is None:
        return None
    subsets = dataset.get('subset', 'train')
    split = load_split(dataset['data_root'], dataset['split'])
    patient_of = open_store(dataset['data_root']).patient_of
    share, seed = dataset.get('fraction', 1.0), dataset.get('fraction_seed', 0)
    return len(
        {
            patient_of(name)
            for subset in ([subsets] if isinstance(subsets, str) else subsets)
            for name in take_fraction(split, subset, share, seed, patient_of)
        }
    )
